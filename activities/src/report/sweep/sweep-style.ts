import { themed } from '../page-style.ts'

/** Fills of cells stay pale or dark enough to read the page's ink on them; `ramp` orders what is compared by colour. */
const palette = [
  ['heat', '#5fa8dc', '#2a6399'],
  ['pale', '#f1efe6', '#252930'],
  ['lost', '#e8955a', '#8a4a16'],
  ['blank', '#e9e7df', '#1b1e23'],
  ['ramp-low', '#c98500', '#f2c14e'],
  ['ramp-mid', '#1c8a7a', '#4fc3ad'],
  ['ramp-high', '#5b2a86', '#a08cf5'],
] as const

/** What only the page of a sweep needs. */
export const sweepStyle = `${themed(palette)}
.alarm{display:flex;flex-wrap:wrap;gap:.1rem .9rem;align-items:baseline;border-left:6px solid currentColor;border-radius:4px;padding:.5rem 1rem;margin:.6rem 0 0;max-width:86ch}
.alarm strong{font-size:1.12rem;text-transform:uppercase;letter-spacing:.04em}
.alarm span{color:var(--ink)}
.alarm.bad{background:var(--bad-tint);color:var(--bad)}.alarm.warn{background:var(--warn-tint);color:var(--warn)}
.maps{display:grid;gap:.5rem 2.5rem}
.maps.paired{grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr))}
.maps figure{margin:.6rem 0}.maps figcaption span{flex-basis:100%}
ul.findings{margin:.2rem 0 0;padding:0 0 0 1.1rem;max-width:74ch}ul.findings li{margin:.35rem 0}
.map{overflow-x:auto}.map svg{display:block;width:100%;height:auto}
.maps:not(.paired) .map svg{min-width:760px}
.map text{font-variant-numeric:tabular-nums lining-nums}
.map a{text-decoration:none}
.map a:hover .tab,.map a:focus-visible .tab{stroke:var(--ink);stroke-width:2}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;margin:.2rem 0 .8rem;padding:0;font-size:.84rem;color:var(--soft)}
.key li{display:flex;align-items:center;gap:.5em}
.key svg{width:30px;height:20px;flex:none}
.ledger{position:relative;display:flex;height:1.5rem;background:var(--raised);border:1px solid var(--line);border-radius:4px}
.ledger i{width:var(--w)}.ledger .spent{background:var(--c1)}
.ledger .held,.legend i.held{background:repeating-linear-gradient(135deg,var(--c1) 0 2px,transparent 2px 6px)}
.ledger b{position:absolute;top:-.3rem;bottom:-.3rem;left:var(--m);border-left:3px solid var(--ink)}
.legend i.tick{width:0;height:1em;border-radius:0;background:none;border-left:3px solid var(--ink)}
.ledger,.ledger i,.legend i,.alarm{print-color-adjust:exact;-webkit-print-color-adjust:exact}
a.run{white-space:nowrap}
tr.chosen td{font-weight:600;border-top:2px solid var(--ink);border-bottom:2px solid var(--ink)}
@media print{ul.findings{margin:.2rem 0 0;padding:0 0 0 1.1rem;max-width:74ch}ul.findings li{margin:.35rem 0}
.map{overflow:visible}.maps:not(.paired) .map svg{min-width:0}.alarm{break-inside:avoid;border:2px solid currentColor;border-left-width:8px}}
`
