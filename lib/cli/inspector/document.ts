/** The page's document and its look. All that a device says comes later, by script, as text. */

const TABS: readonly [id: string, title: string][] = [
  ['device', 'Device'],
  ['config', 'Config space'],
  ['registers', 'Registers'],
  ['memory', 'Memory'],
  ['traffic', 'Traffic'],
];

/** The same for whatever is inspected: the script fills it. */
export function documentOf(): string {
  const tabs = TABS.map(
    ([id, title], i) =>
      `<button role="tab" type="button" id="tab-${id}" aria-controls="panel-${id}" aria-selected="${i === 0}" ` +
      `tabindex="${i === 0 ? 0 : -1}">${title}</button>`,
  );
  const panels = TABS.map(
    ([id, title], i) =>
      `<section role="tabpanel" id="panel-${id}" aria-labelledby="tab-${id}" tabindex="0"${i === 0 ? '' : ' hidden'}>` +
      `<h2>${title}</h2><div id="${id}"></div></section>`,
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>vfio-user inspect</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="style.css">
<script type="module" src="app.js"></script>
</head>
<body>
<header>
<h1 id="title">vfio-user inspect</h1>
<p id="subtitle"></p>
<p id="status" role="status"></p>
</header>
<div role="tablist" aria-label="Views">${tabs.join('')}</div>
<main>${panels.join('')}</main>
<noscript><p>The inspector needs JavaScript.</p></noscript>
</body>
</html>
`;
}

/** The colours are those of the benchmarks' report and of the API site. */
export const STYLE = `
:root {
  --back: #fff; --soft: #f5f7f9; --line: #dfe3e8; --text: #1c2330; --aside: #5b6472; --accent: #13795b; --bad: #b3261e;
  --sent: #2563a8; --received: #13795b; --interrupt: #b45309; --dma: #7c5cbf;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #14181f; --soft: #1a2029; --line: #2c333d; --text: #e3e7ed; --aside: #9aa4b2; --accent: #57c79f; --bad: #ff8a80;
    --sent: #7fb2ea; --received: #57c79f; --interrupt: #f0a95b; --dma: #b9a3ec;
  }
}
* { box-sizing: border-box; }
body { background: var(--back); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 84rem; padding: 1.25rem 1.5rem 3rem; }
header { align-items: baseline; column-gap: 1rem; display: flex; flex-wrap: wrap; }
h1 { font-size: 1.35rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 0 0 .75rem; }
h3 { font-size: .95rem; margin: 1.5rem 0 .4rem; }
header p { color: var(--aside); margin: 0; }
#status { margin-left: auto; }
#status.bad, .error { color: var(--bad); font-weight: 600; }
[role=tablist] { border-bottom: 1px solid var(--line); display: flex; flex-wrap: wrap; gap: .25rem; margin: 1rem 0 1.25rem; }
[role=tab] { background: none; border: 0; border-bottom: 2px solid transparent; color: var(--aside); cursor: pointer; font: inherit; padding: .45rem .8rem; }
[role=tab][aria-selected=true] { border-color: var(--accent); color: var(--text); font-weight: 600; }
:focus-visible { border-radius: 3px; outline: 2px solid var(--accent); outline-offset: 2px; }
[role=tabpanel]:focus-visible { outline-offset: 6px; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
caption { color: var(--aside); font-size: .85rem; padding-bottom: .3rem; text-align: left; }
th, td { border-bottom: 1px solid var(--line); padding: .28rem .7rem .28rem 0; text-align: left; vertical-align: top; }
thead th { color: var(--aside); font-weight: 600; }
tbody th { font-weight: 500; }
.scroll { overflow-x: auto; }
code, pre, .mono { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { background: var(--soft); border-radius: 6px; margin: .5rem 0; overflow-x: auto; overflow-wrap: normal; padding: .7rem .9rem; }
.number { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
.nowrap { white-space: nowrap; }
.aside { color: var(--aside); }
.changed { background: color-mix(in srgb, var(--accent) 18%, transparent); }
form, .bar { align-items: end; display: flex; flex-wrap: wrap; gap: .6rem 1rem; margin: 0 0 1rem; }
label { color: var(--aside); display: grid; font-size: .85rem; gap: .15rem; }
label.row { align-items: center; align-self: end; display: flex; gap: .4rem; min-height: 2.1rem; }
input, select, button.do { min-height: 2.1rem; background: var(--back); border: 1px solid var(--line); border-radius: 5px; color: var(--text); font: inherit; padding: .3rem .55rem; }
input[type=checkbox] { accent-color: var(--accent); height: 1rem; margin: 0; min-height: 0; width: 1rem; }
button.do { background: var(--soft); cursor: pointer; }
button.do:disabled { cursor: default; opacity: .5; }
.columns { display: grid; gap: 0 2.5rem; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); }
svg { background: var(--soft); border-radius: 6px; display: block; height: auto; width: 100%; }
svg text { fill: var(--aside); font: 11px system-ui, sans-serif; }
svg .axis { stroke: var(--line); }
.sent { color: var(--sent); fill: var(--sent); } .received { color: var(--received); fill: var(--received); }
.interrupt { color: var(--interrupt); fill: var(--interrupt); } .dma { fill: var(--dma); opacity: .75; }
tr.failed td { color: var(--bad); }
.hidden { clip-path: inset(50%); height: 1px; overflow: hidden; position: absolute; white-space: nowrap; width: 1px; }
@media (prefers-reduced-motion: no-preference) { .changed { transition: background .6s; } }
`;
