"""The page's style: system fonts, one column, light and dark by what the reader's system says."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fff; --ink: #1d2329; --quiet: #5b6570; --rule: #dfe3e8; --tint: #f4f6f8;
  --c0: #2f6db5; --c1: #c8501e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181c; --ink: #e3e7eb; --quiet: #9aa5b1; --rule: #333a42; --tint: #1e2329;
    --c0: #74a9e8; --c1: #f0915c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 3rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { margin: 0 0 .5rem; font-size: 2rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 1rem; padding-top: 1.5rem; border-top: 1px solid var(--rule); font-size: 1.35rem; }
h3 { margin: 1.5rem 0 .5rem; font-size: 1rem; }
section { margin-top: 2.25rem; }
p { max-width: 46rem; margin: .75rem 0; overflow-wrap: anywhere; }
a { color: var(--c0); }
code { font: .875em/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
small { color: var(--quiet); font-size: .875em; }
.lead { font-size: 1.1rem; }
.quiet, .caption, figcaption, footer { color: var(--quiet); }
.caption, figcaption, footer { font-size: .875rem; }
dl { display: grid; gap: .25rem 1rem; margin: 1rem 0; }
dl > div { display: grid; grid-template-columns: 7rem 1fr; gap: 1rem; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
nav ol { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1.5rem 0 0;
  padding: .75rem 1rem .75rem 2.25rem; background: var(--tint); border-radius: .375rem; }
nav li { padding-right: .75rem; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9375rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem 1rem .35rem 0; border-bottom: 1px solid var(--rule);
  text-align: left; vertical-align: top; }
thead th { color: var(--quiet); font-weight: 500; vertical-align: bottom; }
tbody th { font-weight: 400; }
.number { text-align: right; }
td.number { white-space: nowrap; }
thead .number { min-width: 8rem; }
figure { margin: 1rem 0; }
figcaption { margin-top: .5rem; max-width: 46rem; }
img { display: block; max-width: 100%; height: auto; image-rendering: auto; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr));
  gap: 1rem 2rem; }
.charts { margin-top: 1.25rem; }
.charts > figure { margin: 0; }
.chart { max-width: 36rem; }
svg { display: block; width: 100%; height: auto; fill: var(--ink);
  font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
svg path { fill: none; stroke-width: 1; }
.axis { stroke: var(--quiet); }
.rule { stroke: var(--rule); }
.c0 { --color: var(--c0); }
.c1 { --color: var(--c1); }
svg .line { stroke: var(--color); stroke-width: 1.75; stroke-linejoin: round; }
svg .mark { stroke: var(--quiet); stroke-dasharray: 3 3; }
svg .band { fill: var(--color); opacity: .2; }
svg circle { fill: var(--color); }
.legend { display: flex; flex-wrap: wrap; gap: .125rem 1rem; font-size: .8125rem;
  color: var(--quiet); }
.key { display: inline-block; width: 1.25rem; margin-right: .375rem; vertical-align: middle;
  border-top: 3px solid var(--color); }
.beside { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.thumbnails { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(13rem, 45%), 1fr)); }
.thumbnails figure { margin: 0; }
.sections { columns: 17rem; column-gap: 2.5rem; }
.sections > div { break-inside: avoid; padding-bottom: 1.25rem; }
.sections h3 { margin-top: 0; }
.sections table { width: 100%; }
.sections th { color: var(--quiet); }
.sections td { overflow-wrap: anywhere; }
.changed { color: var(--quiet); font-size: .875em; }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
@media (max-width: 36rem) {
  dl > div { grid-template-columns: 1fr; gap: 0; }
  body { padding-top: 1.25rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; }
}
"""
