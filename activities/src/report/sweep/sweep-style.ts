/** What only the page of a sweep needs. */
export const sweepStyle = `
.alarm{display:flex;flex-wrap:wrap;gap:.1rem .9rem;align-items:baseline;border-left:6px solid currentColor;border-radius:4px;padding:.75rem 1rem;margin:.9rem 0 0;font-size:1.02rem;max-width:74ch}
.alarm strong{font-size:1.15rem;text-transform:uppercase;letter-spacing:.04em}
.alarm span{color:var(--ink);flex:1 1 100%}
.alarm.bad{background:var(--bad-tint);color:var(--bad)}.alarm.warn{background:var(--warn-tint);color:var(--warn)}
.ledger{position:relative;display:flex;height:1.5rem;background:var(--raised);border:1px solid var(--line);border-radius:4px}
.ledger i{width:var(--w)}.ledger .spent{background:var(--c1)}
.ledger .held,.legend i.held{background:repeating-linear-gradient(135deg,var(--c1) 0 2px,transparent 2px 6px)}
.ledger b{position:absolute;top:-.3rem;bottom:-.3rem;left:var(--m);border-left:3px solid var(--ink)}
.legend i.tick{width:0;height:1em;border-radius:0;background:none;border-left:3px solid var(--ink)}
`
