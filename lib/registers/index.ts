/**
 * Registers by name, `vfio-user/registers`: a register map as data, made by hand or out of CMSIS-SVD, IP-XACT or SystemRDL; typed
 * accessors on a device; checks and coverage of the map. Where to start: `map.ts` is what a map is, `register.ts` what an access is.
 */
export {
  READ_EFFECTS,
  WRITE_EFFECTS,
  accessWords,
  type Access,
  type ReadEffect,
  type WriteEffect,
} from '../register-map/access.js';
export { BoundRegisters, bindRegisters, type BindOptions } from './bind.js';
export {
  checkRegisters,
  type RegisterCheckOptions,
  type RegisterCheckReport,
  type RegisterFinding,
  type RegisterTest,
} from './check.js';
export { RegisterCoverage, type CoverageReport, type RegisterTouches } from './coverage.js';
export {
  REGISTER_MAP_FORMAT,
  type AccessData,
  type ArrayData,
  type EnumValueData,
  type IntegerData,
  type RegisterBlockData,
  type RegisterData,
  type RegisterFieldData,
  type RegisterGroupData,
  type RegisterMapData,
} from '../register-map/data.js';
export { RegisterMapError, type ImportWarning } from '../register-map/error.js';
export { generateAccessors, type GenerateOptions } from './generate.js';
export {
  loadRegisterMap,
  parseRegisterMap,
  type LoadedRegisterMap,
  type RegisterMapFormat,
} from '../register-map/load.js';
export {
  RegisterMap,
  type BlockInfo,
  type EnumValue,
  type FieldInfo,
  type GroupInfo,
  type MemberInfo,
  type RegisterInfo,
} from '../register-map/map.js';
export { RegisterPlacement, type PlacedRegister, type PlacementOptions } from '../register-map/placement.js';
export type { RegisterTarget } from './port.js';
export type { CallOptions, ConfigSpace, MappedArea, Region, SyncCallOptions } from '../index.js';
export { VfioUserError } from '../errors.js';
export {
  Field,
  Register,
  type FieldValues,
  type RegisterAccessEvent,
  type RegisterValue,
  type RegisterWaitOptions,
  type RegisterWaitSyncOptions,
} from './register.js';
export { REGISTER_MAP_SCHEMA } from '../register-map/schema.js';
