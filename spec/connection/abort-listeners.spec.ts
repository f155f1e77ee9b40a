/** One listener for each signal, however many share it. */
import { getEventListeners } from 'node:events';
import { describe, expect, test } from '@jest/globals';
import { checkSignal, listenForAbort, pause } from '../../lib/connection/abort-listeners.js';

describe('listeners of one signal', () => {
  test('are called in their order, once, with the reason', () => {
    const controller = new AbortController();
    const { signal } = controller;
    const heard: unknown[] = [];
    for (const name of ['first', 'second', 'third'])
      listenForAbort(signal, (reason) => heard.push([name, reason]));
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    controller.abort('enough');
    expect(heard).toEqual([
      ['first', 'enough'],
      ['second', 'enough'],
      ['third', 'enough'],
    ]);
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });

  test('one that is removed, also while others are called, is not called', () => {
    const controller = new AbortController();
    const heard: string[] = [];
    const first = listenForAbort(controller.signal, () => heard.push('first'));
    listenForAbort(controller.signal, () => {
      heard.push('second');
      third.remove();
    });
    const third = listenForAbort(controller.signal, () => heard.push('third'));
    first.remove();
    first.remove();
    controller.abort();
    expect(heard).toEqual(['second']);
    third.remove();
  });

  test('the last one that goes takes the listener along, and the next one brings it back', () => {
    const controller = new AbortController();
    const { signal } = controller;
    const heard: string[] = [];
    const first = listenForAbort(signal, () => heard.push('first'));
    first.remove();
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
    listenForAbort(signal, () => heard.push('second'));
    first.remove();
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    controller.abort();
    expect(heard).toEqual(['second']);
  });

  test('forty thousand come and go in no particular order', () => {
    const controller = new AbortController();
    let calls = 0;
    const listeners = Array.from({ length: 40_000 }, () => listenForAbort(controller.signal, () => calls++));
    for (let i = 0; i < listeners.length; i += 2) listeners[i]!.remove();
    controller.abort();
    expect(calls).toBe(20_000);
  });
});

test('what is no signal is refused, and one that is aborted already throws its reason', () => {
  expect(() => checkSignal({} as AbortSignal)).toThrow(TypeError);
  expect(() => checkSignal(null as unknown as AbortSignal)).toThrow(
    'signal must be an AbortSignal, got null',
  );
  expect(() => checkSignal(AbortSignal.abort(new Error('enough')))).toThrow('enough');
  expect(() => checkSignal(undefined)).not.toThrow();
});

test('a pause ends by itself, or with the reason', async () => {
  const controller = new AbortController();
  await pause(1, controller.signal);
  expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0);
  const pausing = pause(60_000, controller.signal);
  controller.abort(new Error('enough'));
  await expect(pausing).rejects.toThrow('enough');
  await expect(pause(1, controller.signal)).rejects.toThrow('enough');
});
