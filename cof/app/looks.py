"""How the page looks, and how a box is drawn on it with the pointer."""

from __future__ import annotations

CSS = """
h3 small { font-weight: 400; opacity: .75; margin-left: .8rem; }
.cof-panels { display: flex; flex-wrap: wrap; gap: 1rem; }
.cof-panels figure { flex: 1 1 18rem; margin: 0; min-width: 0; }
.cof-panels figcaption { font-size: .85rem; overflow-wrap: anywhere; }
.cof-picture { display: block; width: 100%; max-height: 48vh; min-height: 2rem; overflow: hidden; }
.cof-draws { cursor: crosshair; touch-action: none; user-select: none; }
.cof-picture rect { fill: none; vector-effect: non-scaling-stroke; }
.cof-picture .cof-found, .cof-picture .cof-used, .cof-picture .cof-true, .cof-picture .cof-drawn {
  stroke-width: 2.5px; paint-order: stroke; filter: drop-shadow(0 0 1px white); }
.cof-picture .cof-found { stroke: #D55E00; }
.cof-picture .cof-used { stroke: #56B4E9; stroke-dasharray: 8 5; }
.cof-picture .cof-true { stroke: #009E73; stroke-dasharray: 2 4; }
.cof-picture .cof-drawn { stroke: #CC79A7; fill: #CC79A733; }
.cof-picture .cof-whole { fill: white; }
.cof-picture .cof-hole { fill: black; }
.cof-picture .cof-fade { fill: white; fill-opacity: .72; }
.cof-picture .cof-cell { stroke: #0008; stroke-width: .7px; }
.cof-key::before { content: ""; display: inline-block; width: 1.3em; margin-right: .3em;
  border-top: 3px solid; vertical-align: middle; }
.cof-key { margin-right: .8em; }
.cof-key.cof-found::before { border-color: #D55E00; }
.cof-key.cof-used::before { border-color: #56B4E9; border-top-style: dashed; }
.cof-key.cof-true::before { border-color: #009E73; border-top-style: dotted; }
.cof-asked { font-weight: 600; margin: .5rem 0; }
.cof-cards { display: flex; flex-wrap: wrap; gap: 1rem; }
.cof-card { flex: 1 1 12rem; padding: .6rem .9rem; border-radius: .5rem;
  border: 1px solid var(--border-color-primary); }
.cof-card > div { font-size: 1.25rem; line-height: 2.4; overflow-wrap: anywhere; }
.cof-token { ruby-position: under; padding: 0 .15em; border-radius: .2em;
  background: color-mix(in srgb, #009E73 calc(45% * var(--p)), transparent); }
.cof-token rt { font-size: .65rem; opacity: .8; }
.cof-legend { font-size: .85rem; margin: .8rem 0 .2rem; }
.cof-line { display: grid; gap: 2px;
  grid-template-columns: repeat(auto-fill, minmax(max(3.6rem, 9.5%), 1fr)); }
.cof-line > div { text-align: center; padding: .25rem .1rem;
  border-radius: .25rem; display: flex; flex-direction: column; min-width: 0;
  border: 2px solid transparent;
  background: var(--background-fill-secondary); }
.cof-line > div.cof-other { background: color-mix(in srgb, #E69F00 40%, transparent); }
.cof-line > div.cof-here { border-color: #0072B2; }
.cof-line span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.cof-line i { font-size: .75rem; opacity: .75; }
.cof-figure { width: 100%; }
.cof-record { width: 100%; margin: 0 0 .6rem; }
.cof-record th { text-align: left; width: 6rem; font-weight: 500; opacity: .75; }
.cof-record td { overflow-wrap: anywhere; }
.cof-record td, .cof-record th { padding: .25rem .6rem !important; }
.cof-mark { padding: .1em .5em; border-radius: .3em; }
.cof-right { background: color-mix(in srgb, #009E73 35%, transparent); }
.cof-wrong { background: color-mix(in srgb, #D55E00 35%, transparent); }
.cof-error { color: #D55E00; overflow-wrap: anywhere; }
"""

DRAW = """
let first = null, svg = null, drawn = null;
const share = (value, low, length) => Math.min(1, Math.max(0, (value - low) / length));
const at = (event) => {
  const place = svg.querySelector('image').getBoundingClientRect();
  return [share(event.clientX, place.left, place.width),
          share(event.clientY, place.top, place.height)];
};
const corners = (event) => {
  const last = at(event);
  return [Math.min(first[0], last[0]), Math.min(first[1], last[1]),
          Math.max(first[0], last[0]), Math.max(first[1], last[1])];
};
element.addEventListener('pointerdown', (event) => {
  svg = event.target.closest('svg.cof-draws');
  if (!svg || event.button !== 0) { svg = null; return; }
  event.preventDefault();
  svg.setPointerCapture(event.pointerId);
  if (!event.shiftKey) svg.querySelectorAll('.cof-drawn').forEach((old) => old.remove());
  first = at(event);
  drawn = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
  drawn.setAttribute('class', 'cof-drawn');
  svg.appendChild(drawn);
});
element.addEventListener('pointermove', (event) => {
  if (!drawn) return;
  const [x0, y0, x1, y1] = corners(event), size = svg.viewBox.baseVal;
  drawn.setAttribute('x', x0 * size.width);
  drawn.setAttribute('y', y0 * size.height);
  drawn.setAttribute('width', (x1 - x0) * size.width);
  drawn.setAttribute('height', (y1 - y0) * size.height);
});
element.addEventListener('pointerup', (event) => {
  if (!drawn) return;
  const box = corners(event), small = box[2] - box[0] < 0.004 || box[3] - box[1] < 0.004;
  if (small) { drawn.remove(); } else { trigger('draw', {box: box, joins: event.shiftKey}); }
  drawn = null;
});
element.addEventListener('pointercancel', () => {
  if (drawn) drawn.remove();
  drawn = null;
});
"""
