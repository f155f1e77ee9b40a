/** Registers of a map as tables and JSON. */
import { accessWords, type CoverageReport, type RegisterCheckReport } from '../registers/index.js';
import { columns, counted, hex } from './format-text.js';
import type { BoundRegister } from './register-map.js';

/** What a register holds; undefined where it was not read. */
export interface ReadRegister {
  readonly one: BoundRegister;
  readonly value: number | bigint | undefined;
}

export function registerTable(registers: readonly ReadRegister[]): string {
  return columns(
    registers.map(({ one, value }) => [
      one.name,
      hex(one.offset, 2),
      accessOf(one),
      value === undefined ? 'not read' : one.bound.format(value),
    ]),
  );
}

export function registerJson(registers: readonly ReadRegister[]): object[] {
  return registers.map(({ one, value }) => ({
    name: one.name,
    offset: one.offset,
    bits: one.register.bits,
    access: accessOf(one),
    value: value === undefined ? null : hex(value, one.register.bits / 4),
    fields: value === undefined ? {} : one.bound.decode(value),
  }));
}

/** All of its fields' words, each once. */
function accessOf({ register: { access, fields } }: BoundRegister): string {
  if (fields.length === 0) return accessWords(access);
  return [...new Set(fields.map((field) => accessWords(field.access)))].join(', ');
}

export function checkText({ findings, tested, skipped }: RegisterCheckReport): string {
  const tests = Object.entries(tested).map(([test, count]) => `${test} ${count}`);
  const found = findings.map(({ test, message }) => `${test}: ${message}`);
  const summary = `${counted(findings.length, 'finding')}; registers tested: ${tests.join(', ')}; ${skipped.length} skipped`;
  return [...found, summary].join('\n');
}

export function checkJson({ findings, tested, skipped }: RegisterCheckReport): object {
  return {
    findings: findings.map(({ test, register, other, message }) => ({
      test,
      register: register.path,
      ...(other !== undefined && { other: other.path }),
      message,
    })),
    tested,
    skipped: skipped.map(({ register, reason }) => ({ register: register.path, reason })),
  };
}

export function coverageText({ registers, touched, readable, writable, outside }: CoverageReport): string {
  const rows = registers.map(({ name, offset, reads, writes, order }) => [
    name,
    hex(offset, 2),
    order === undefined ? 'not touched' : `#${order}`,
    order === undefined ? '' : `${counted(reads, 'read')}, ${counted(writes, 'write')}`,
  ]);
  const summary = [
    `${touched} of ${counted(registers.length, 'register')} touched`,
    `${readable.read} of ${readable.count} readable ones read`,
    `${writable.written} of ${writable.count} writable ones written`,
    `${outside} accesses outside the map`,
  ];
  return `${columns(rows)}\n${summary.join('; ')}`;
}
