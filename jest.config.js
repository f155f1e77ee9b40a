/** @type {import('jest').Config} */
export default {
  testMatch: ['<rootDir>/spec/**/*.spec.ts'],
  modulePathIgnorePatterns: ['<rootDir>/build/', '<rootDir>/dist/'],
  extensionsToTreatAsEsm: ['.ts'],
  // Sources import what the compiler will emit: './x.js' is './x.ts' here.
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  // tsconfig.json has isolatedModules, so each file is transpiled alone; `npm run check:types` checks types.
  transform: { '^.+\\.ts$': ['ts-jest', { useESM: true }] },
  maxWorkers: 2,
  // Under sanitizers, and on a machine with other things to do, everything takes several times as long.
  testTimeout: 30_000,
  setupFilesAfterEnv: ['<rootDir>/spec/support/collect.cjs'],
  reporters: ['default', '<rootDir>/spec/support/reporter.cjs'],
  coverageProvider: 'babel',
  collectCoverageFrom: ['lib/**/*.ts'],
};
