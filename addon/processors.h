// Whether there is a processor for everybody who wants one.
#pragma once

namespace vfio_user {

/// More threads of this machine want to run, this one among them, than there are processors. It is what there is now:
/// one look takes some 10 µs. False where nothing says.
bool ProcessorsAreTaken();

}  // namespace vfio_user
