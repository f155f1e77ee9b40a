//! The `vfio_user` crate's Client on the reference target: region accesses one after another, as its API has them.
//!
//!   vfio-user-rival SOCKET read|write REGION OFFSET SIZE COUNT
//!
//! The first read is compared with what the reference target holds at first, every later one with the first.
//! Prints one line of JSON, as all trials do.

use std::path::Path;
use std::time::Instant;

use vfio_user::Client;

/// Not timed, as in every other trial.
const WARM_UP: u64 = 2_000;

type Failure = Box<dyn std::error::Error>;

struct Access {
    write: bool,
    region: u32,
    offset: u64,
    size: usize,
    count: u64,
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [socket, op, region, offset, size, count] = args.as_slice() else {
        return Err("usage: vfio-user-rival SOCKET read|write REGION OFFSET SIZE COUNT".into());
    };
    let access = Access {
        write: op == "write",
        region: region.parse()?,
        offset: offset.parse()?,
        size: size.parse()?,
        count: count.parse()?,
    };
    let mut client = Client::new(Path::new(socket)).map_err(|error| format!("{error:?}"))?;
    let mut expected = vec![0u8; access.size];
    read(&mut client, &access, &mut expected)?;
    if !access.write && !is_pattern(&expected, access.offset) {
        return Err("the first read is not what the target holds".into());
    }
    let warm_up = WARM_UP.min(access.count);
    run(&mut client, &access, &expected, warm_up)?;
    let (user, system) = processor_time();
    let begin = Instant::now();
    run(&mut client, &access, &expected, access.count)?;
    let seconds = begin.elapsed().as_secs_f64();
    let (user_end, system_end) = processor_time();
    if access.write {
        let mut held = vec![0u8; access.size];
        read(&mut client, &access, &mut held)?;
        if held != expected {
            return Err("what was written is not there".into());
        }
    }
    println!(
        "{{\"opsPerSecond\":{:.1},\"seconds\":{:.6},\"count\":{},\"userSeconds\":{:.6},\"systemSeconds\":{:.6}}}",
        access.count as f64 / seconds,
        seconds,
        access.count,
        user_end - user,
        system_end - system
    );
    Ok(())
}

fn run(client: &mut Client, access: &Access, expected: &[u8], count: u64) -> Result<(), Failure> {
    let mut data = vec![0u8; access.size];
    for i in 0..count {
        if access.write {
            client
                .region_write(access.region, access.offset, expected)
                .map_err(|error| format!("{error:?}"))?;
            continue;
        }
        read(client, access, &mut data)?;
        // Comparing a long buffer takes longer than some reads: once is enough to know that the answers are right.
        if (access.size <= 8 || i == 0) && data != expected {
            return Err("a read gave other bytes than the first one".into());
        }
    }
    Ok(())
}

fn read(client: &mut Client, access: &Access, data: &mut [u8]) -> Result<(), Failure> {
    client
        .region_read(access.region, access.offset, data)
        .map_err(|error| format!("{error:?}").into())
}

/// Byte n of the reference target's regions is 31 n at first.
fn is_pattern(bytes: &[u8], offset: u64) -> bool {
    bytes
        .iter()
        .zip(offset..)
        .all(|(byte, at)| *byte == (at.wrapping_mul(31) & 0xff) as u8)
}

/// Of this process, user and system.
fn processor_time() -> (f64, f64) {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills the structure that it is given; all of its fields may be zero.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 * 1e-6;
    (seconds(usage.ru_utime), seconds(usage.ru_stime))
}
