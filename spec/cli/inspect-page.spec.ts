/** The inspector's page, and the report of `nvme bench`, in a real Chromium: by keyboard, and as assistive technology has them. */
import { afterAll, afterEach, beforeAll, describe, expect, jest, test } from '@jest/globals';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import type { ChildProcess } from 'node:child_process';
import { pathToFileURL } from 'node:url';
import { chromium, type Browser, type Page } from 'playwright-core';
import {
  MemoryStore,
  NvmeDevice,
  defineDevice,
  serve,
  type EmulatorServer,
} from '../../lib/emulator/index.js';
import { connect } from '../../lib/index.js';
import type { RegisterMapData } from '../../lib/registers/index.js';
import { until } from '../support/until.js';
import { Scratch, start, vfioUser } from './cli.js';

jest.setTimeout(60_000);

const CHROMIUM = process.env['CHROMIUM'] ?? '/usr/bin/chromium';
const HAS_CHROMIUM = existsSync(CHROMIUM);
if (!HAS_CHROMIUM)
  console.warn(`skip: there is no ${CHROMIUM} (Debian's package chromium), or CHROMIUM names none`);

const MAP = {
  format: 'vfio-user-registers/1',
  name: 'timer',
  blocks: [
    {
      name: 'T',
      children: [
        { name: 'CTRL', offset: 0, fields: [{ name: 'MODE', lsb: 0, bits: 4 }] },
        { name: 'COUNT', offset: 4, access: 'RO' },
        { name: 'EVENTS', offset: 8, fields: [{ name: 'N', lsb: 0, bits: 8, access: 'RC' }] },
      ],
    },
  ],
} as unknown as RegisterMapData;

const scratch = new Scratch();
const socket = scratch.path('<img src=x>.sock');
const map = scratch.path('timer.json');
const capture = scratch.path('run.pcapng');
let server: EmulatorServer;
let browser: Browser;
let page: Page;
let eventsRead = 0;
const problems: string[] = [];
const children: ChildProcess[] = [];

(HAS_CHROMIUM ? describe : describe.skip)('in Chromium', () => {
  beforeAll(async () => {
    writeFileSync(map, JSON.stringify(MAP));
    let count = 0;
    const model = defineDevice({
      id: { vendorId: 0x1234, deviceId: 0xd00d },
      map: MAP,
      interrupts: { msix: 1 },
      on: {
        COUNT: { read: () => ++count },
        'EVENTS.N': { read: () => ++eventsRead },
        CTRL: { write: (device) => device.raise(0) },
      },
    });
    server = await serve(model, { path: socket, clients: 'many' });
    await using device = await connect(socket, { capture });
    await device.enable();
    await device.dma.alloc(4096);
    await device.bar(0).writeUInt32(0, 3);
    // Root has no sandbox, and the pages are ours.
    browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
  });

  afterEach(async () => {
    await page.close();
    for (const child of children.splice(0)) {
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await ended;
    }
    expect(problems.splice(0)).toEqual([]);
  });

  afterAll(async () => {
    await browser.close();
    await server.close();
    scratch.remove();
  });

  async function open(...args: string[]): Promise<void> {
    const child = start(['inspect', ...args]);
    children.push(child);
    const [line] = (await once(child.stdout!, 'data')) as [Buffer];
    await visit(line.toString().trim());
    await page
      .getByRole('status')
      .first()
      .getByText(/connected|events/)
      .waitFor();
  }

  async function visit(url: string): Promise<void> {
    page = await browser.newPage();
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('console', (message) => {
      // Chromium's own word of a request that was refused.
      const isRefusal = message.text().startsWith('Failed to load resource');
      if (['error', 'warning'].includes(message.type()) && !isRefusal) problems.push(message.text());
    });
    await page.goto(url);
  }

  const tab = (name: string) => page.getByRole('tab', { name });

  test('tabs are walked by keys, and each panel is named by its tab', async () => {
    await open(socket, '--map', map, '--enable');
    expect(await page.title()).toMatch(/^1234:d00d/);
    // A name that is HTML is text.
    expect(await page.locator('header').innerText()).toContain('<img src=x>.sock');
    expect(await page.locator('img').count()).toBe(0);
    await page.keyboard.press('Tab');
    for (const [key, name] of [
      ['ArrowRight', 'Config space'],
      ['ArrowRight', 'Registers'],
      ['End', 'Traffic'],
      ['ArrowRight', 'Device'],
      ['ArrowLeft', 'Traffic'],
      ['Home', 'Device'],
    ] as const) {
      await page.keyboard.press(key);
      expect(await tab(name).getAttribute('aria-selected')).toBe('true');
      expect(await page.getByRole('tabpanel', { name }).isVisible()).toBe(true);
      expect(await page.getByRole('tabpanel').count()).toBe(1);
    }
    expect(
      await page.getByRole('table', { name: 'Regions' }).getByRole('row', { name: /bar0/ }).count(),
    ).toBe(1);
    expect(await page.getByRole('main').ariaSnapshot()).toMatch(/tabpanel "Device"/);
  });

  test('registers are read at the rate that is chosen, and never those that change by it', async () => {
    await open(socket, '--map', map, '--enable');
    await tab('Registers').click();
    const row = page.getByRole('row', { name: /^COUNT/ });
    await row.getByText(/0x0000/).waitFor();
    const before = await row.innerText();
    await page.getByRole('combobox').selectOption('every 100 ms');
    await until(async () => (await row.innerText()) !== before);
    expect(await page.getByRole('row', { name: /^EVENTS/ }).innerText()).toMatch(/not read/);
    await page.getByLabel('Names that contain').fill('ctrl');
    expect(await page.getByRole('row', { name: /^COUNT/ }).count()).toBe(0);
    expect(await page.getByRole('button', { name: 'Write' }).count()).toBe(0);
    expect(
      await page
        .getByText(/started without --allow-writes/)
        .first()
        .isVisible(),
    ).toBe(true);
    expect(eventsRead).toBe(0);
  });

  test('a write is allowed twice, and its interrupt is on the time axis', async () => {
    await open(socket, '--map', map, '--enable', '--allow-writes', '--irqs', 'msix');
    await tab('Registers').click();
    const panel = page.getByRole('tabpanel', { name: 'Registers' });
    const write = panel.getByRole('button', { name: 'Write' });
    await panel.getByLabel('Register or field').fill('CTRL.MODE');
    await panel.getByLabel('Value').fill('0x9');
    expect(await write.isDisabled()).toBe(true);
    await panel.getByLabel(/may change/).check();
    await write.click();
    await panel.getByText('Written: CTRL.MODE = 0x9').waitFor();
    await panel
      .getByRole('row', { name: /^CTRL/ })
      .getByText('mode=9')
      .or(panel.getByText(/MODE=9/))
      .first()
      .waitFor();
    await panel.getByLabel('Value').fill('0x10');
    await write.click();
    await panel.getByText(/does not fit/).waitFor();
    await tab('Traffic').click();
    await page
      .getByRole('row', { name: /MSI-X 0/ })
      .first()
      .waitFor();
    expect(await page.getByRole('img', { name: /\d+ events from/ }).count()).toBe(1);
    expect(await page.getByRole('row', { name: /REGION_WRITE.*CTRL/ }).count()).toBeGreaterThan(0);
  });

  test('memory is read where it is asked for; config space is there', async () => {
    await open(socket, '--enable');
    await tab('Memory').click();
    await page.getByLabel('Length').fill('16');
    await page.getByRole('button', { name: 'Read' }).click();
    expect(await page.getByRole('region', { name: 'Bytes' }).innerText()).toMatch(/^000000 {2}\w\w /);
    await page.getByLabel('Offset').fill('zzz');
    await page.getByRole('button', { name: 'Read' }).click();
    expect(await page.getByRole('alert').innerText()).toMatch(/offset must be a number/);
    await tab('Config space').click();
    await page.getByRole('row', { name: 'vendorId 0x1234 (4660)' }).waitFor();
    await page.getByRole('heading', { name: /^MSI-X at/ }).waitFor();
  });

  test('a capture is looked at without its device', async () => {
    await open(capture, '--map', map);
    expect(await page.getByRole('tab').allInnerTexts()).toEqual(['Device', 'Registers', 'Traffic']);
    await tab('Registers').click();
    await page.getByRole('row', { name: 'CTRL 0x00 #1 0 1' }).waitFor();
    await tab('Traffic').click();
    await page
      .getByRole('row', { name: /DMA_MAP/ })
      .first()
      .waitFor();
    expect(await page.getByRole('img', { name: /1 DMA regions/ }).count()).toBe(1);
  });

  test('the report of nvme bench has its figures as pictures and as tables', async () => {
    const report = scratch.path('report.html');
    const path = scratch.path('nvme.sock');
    const device = new NvmeDevice({ namespaces: [{ store: new MemoryStore(1 << 20) }] });
    const nvme = await serve(device, { path });
    try {
      const options = ['--sweep', 'qd=1,4', '--seconds', '0.2', '--ramp', '0', '--html', report];
      expect((await vfioUser('nvme', 'bench', path, ...options)).status).toBe(0);
    } finally {
      await nvme.close();
      await device.close();
    }
    await visit(pathToFileURL(report).href);
    expect(await page.getByRole('img').count()).toBe(2);
    expect(await page.getByRole('table').count()).toBeGreaterThan(0);
  });
});
