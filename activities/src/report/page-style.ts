/** [variable, light, dark]. Series colours after Okabe and Ito, so that colour-blind readers can tell them apart. */
const palette = [
  ['paper', '#fdfdfb', '#15171b'],
  ['raised', '#f5f4ef', '#1d2026'],
  ['ink', '#1c1e22', '#e9e7e1'],
  ['soft', '#5d626b', '#a3a8b1'],
  ['line', '#e2e0d8', '#30343c'],
  ['good', '#147a4f', '#5cc795'],
  ['bad', '#b8321f', '#f08a76'],
  ['warn', '#936200', '#e3b341'],
  ['good-tint', '#e3f2ea', '#173327'],
  ['bad-tint', '#fae7e3', '#3d211c'],
  ['warn-tint', '#faf0d8', '#38301a'],
  ['c1', '#2a6fb0', '#5f9fdb'],
  ['c2', '#cf6a0c', '#e8964a'],
  ['c3', '#11866f', '#45c4a6'],
  ['c4', '#9a4a92', '#d794d0'],
  ['c5', '#ab3b24', '#ee8a72'],
  ['c6', '#3f9fc6', '#96d5f1'],
  ['c7', '#8f7d00', '#dbc94f'],
  ['c8', '#70757e', '#9ca2ab'],
] as const

type Palette = readonly (readonly [name: string, light: string, dark: string])[]

/** Rules that set variables to their light or dark value: by the reader's system, by the page's switch; print is light. */
export const themed = (of: Palette): string => {
  const colours = (column: 1 | 2): string => of.map((p) => `--${p[0]}:${p[column]}`).join(';')
  return `:root{color-scheme:light;${colours(1)}}
@media (prefers-color-scheme:dark){:root:not([data-theme=light]){color-scheme:dark;${colours(2)}}}
:root[data-theme=dark]{color-scheme:dark;${colours(2)}}
@media print{:root,:root[data-theme]{color-scheme:light;${colours(1)}}}
`
}

export const style = `
${themed(palette)}*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:1.5rem}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 ui-sans-serif,system-ui,-apple-system,"Segoe UI","Noto Sans","Helvetica Neue",Arial,"PingFang SC","Hiragino Sans GB","Microsoft YaHei","Noto Sans CJK SC",sans-serif;text-rendering:optimizeLegibility}
.page{max-width:1330px;margin:0 auto;padding:0 1.5rem 5rem;display:grid;grid-template-columns:150px minmax(0,1fr);gap:0 2.5rem}
main{max-width:1100px;min-width:0}
h1,h2,h3,.tile b,.lead{font-family:"Iowan Old Style","Palatino Linotype",Palatino,"Source Serif 4","Noto Serif",Georgia,"Liberation Serif",serif}
h1{font-size:2.5rem;line-height:1.15;font-weight:600;letter-spacing:-.01em;margin:.1rem 0 .6rem;overflow-wrap:anywhere}
h2{font-size:1.5rem;font-weight:600;line-height:1.25;margin:0 0 .9rem;padding-top:1.1rem;border-top:2px solid var(--ink)}
h3{font-size:1.08rem;font-weight:600;margin:1.9rem 0 .5rem}
p{margin:.5rem 0;max-width:74ch}
section{margin-top:3.2rem}
a{color:var(--c1);text-underline-offset:2px}
code,pre{font-family:ui-monospace,SFMono-Regular,"Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.86em}
code{overflow-wrap:anywhere}
pre{background:var(--raised);border:1px solid var(--line);border-radius:6px;padding:.9rem 1rem;overflow:auto;max-height:34rem;line-height:1.45}
header.top{padding:2.6rem 0 0}
.kicker{font-size:.78rem;letter-spacing:.09em;text-transform:uppercase;color:var(--soft);margin:0}
.lead{font-size:1.2rem;line-height:1.5;max-width:68ch;margin:.9rem 0}
.lead p{margin:.45rem 0;max-width:none}
.meta{color:var(--soft);font-size:.86rem;display:flex;flex-wrap:wrap;gap:.15rem 1.3rem;margin:.4rem 0 0;padding:0;list-style:none}
nav{position:sticky;top:0;align-self:start;max-height:100vh;overflow:auto;padding:2.75rem 0 1rem;font-size:.84rem}
nav ol{list-style:none;margin:.5rem 0 0;padding:0;border-left:1px solid var(--line)}
nav a{display:block;padding:.17rem 0 .17rem .8rem;margin-left:-1px;color:var(--soft);text-decoration:none;border-left:1px solid transparent}
nav a:hover,nav a:focus-visible{color:var(--ink);border-color:var(--ink)}
#theme{font:inherit;font-size:.8rem;color:var(--soft);background:none;border:1px solid var(--line);border-radius:99px;padding:.15rem .75rem;cursor:pointer}
#theme:hover{color:var(--ink);border-color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:0;margin:1.6rem 0 0;border-top:1px solid var(--line);border-bottom:1px solid var(--line)}
.tile{padding:.9rem 1rem .9rem 0;display:flex;flex-direction:column}
.tile b{font-size:1.65rem;font-weight:600;line-height:1.2;font-variant-numeric:tabular-nums lining-nums}
.tile span{font-size:.8rem;color:var(--soft);line-height:1.4}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
.badge{display:inline-block;font-size:.78rem;font-weight:600;line-height:1;padding:.28em .6em;border-radius:99px;white-space:nowrap;background:var(--raised);color:var(--soft)}
.badge.good{background:var(--good-tint);color:var(--good)}.badge.bad{background:var(--bad-tint);color:var(--bad)}.badge.warn{background:var(--warn-tint);color:var(--warn)}
.verdict{font:400 1rem ui-sans-serif,system-ui,sans-serif;letter-spacing:0;vertical-align:.35em;margin-left:.5rem}
.scroll{overflow-x:auto;margin:.7rem 0}
table{border-collapse:collapse;width:100%;font-size:.88rem;line-height:1.4;font-variant-numeric:tabular-nums lining-nums}
caption{text-align:left;font-weight:600;padding:.3rem 0 .5rem;caption-side:top}
th{font-weight:600;text-align:left;font-size:.78rem;color:var(--soft);vertical-align:bottom;padding:.3rem .9rem .35rem 0;border-bottom:1px solid var(--soft)}
td{padding:.28rem .9rem .28rem 0;border-bottom:1px solid var(--line);vertical-align:top;unicode-bidi:isolate;overflow-wrap:break-word}
th:last-child,td:last-child{padding-right:0}
td code{overflow-wrap:normal;white-space:nowrap}
.num{text-align:right;white-space:nowrap}
tbody tr:hover{background:var(--raised)}
tfoot td{font-weight:600;border-bottom:0;border-top:1px solid var(--soft)}
tr.group td{font-weight:600;padding-top:.8rem;border-bottom-color:var(--soft)}
.dim{color:var(--soft)}
.note{color:var(--soft);font-size:.84rem;max-width:80ch}
.absent{color:var(--soft);border-left:3px solid var(--line);padding:.2rem 0 .2rem .8rem}
.bar{position:relative;display:inline-block;width:100%;min-width:7.5rem;text-align:right}
.bar i{position:absolute;left:0;top:.16em;bottom:.16em;width:calc(var(--w)*.54);background:var(--c1);opacity:.32;border-radius:2px}
.bar b{position:absolute;left:calc(var(--m)*.54);top:0;bottom:0;width:2px;background:var(--ink)}
.bar span{position:relative}
figure{margin:1.4rem 0}
figcaption{font-size:.88rem;margin-bottom:.3rem;display:flex;flex-wrap:wrap;gap:0 .7rem;align-items:baseline}
figcaption strong{font-weight:600}figcaption span{color:var(--soft)}
.chart{overflow-x:auto}.chart svg{display:block;width:100%;min-width:640px;height:auto}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;margin:.2rem 0 .3rem;padding:0;font-size:.82rem;color:var(--soft)}
.legend i{display:inline-block;width:.75em;height:.75em;border-radius:2px;background:var(--k);margin-right:.4em}
.legend i.line,.legend i.dash{height:0;width:1.4em;border-radius:0;background:none;border-top:2px solid var(--k);vertical-align:.28em}
.legend i.dash{border-top-style:dashed}.legend i.dot{border-radius:99px}
details{margin:.7rem 0}
summary{cursor:pointer;color:var(--c1);font-size:.9rem}
dl.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(310px,1fr));gap:0 2.2rem;margin:.6rem 0}
dl.facts div{display:flex;justify-content:space-between;gap:1rem;border-bottom:1px solid var(--line);padding:.28rem 0}
dt{color:var(--soft);font-size:.86rem}dd{margin:0;text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:anywhere;font-size:.9rem}
.chain{display:flex;flex-wrap:wrap;gap:.55rem 0;list-style:none;margin:.8rem 0;padding:0}
.chain li{display:flex;align-items:center}
.chain li+li::before{content:"→";color:var(--soft);padding:0 .6rem}
.chain div{border:1px solid var(--line);border-radius:6px;padding:.4rem .7rem;background:var(--raised);font-size:.86rem;line-height:1.35}
.chain small{display:block;color:var(--soft)}
.span{position:relative;display:block;min-width:11rem;height:1.1em}
.span i{position:absolute;top:50%;height:2px;margin-top:-1px;left:var(--a);width:var(--w);background:currentColor}
.span b{position:absolute;top:15%;bottom:15%;left:var(--m);width:3px;margin-left:-1px;background:currentColor;border-radius:1px}
.span u{position:absolute;top:-.2em;bottom:-.2em;left:var(--m);border-left:2px dashed var(--soft)}
footer{margin-top:4rem;padding-top:.8rem;border-top:1px solid var(--line);color:var(--soft);font-size:.82rem}
:focus-visible{outline:2px solid var(--c1);outline-offset:2px}
@media (max-width:1000px){.page{display:block;padding:0 1rem 4rem}nav{position:sticky;z-index:2;background:var(--paper);padding:.5rem 0;margin:0 -1rem;border-bottom:1px solid var(--line)}nav ol{display:flex;overflow-x:auto;border:0;margin:0 0 0 .5rem}nav a{white-space:nowrap;padding:.3rem .55rem}nav{display:flex;align-items:center;padding-left:1rem}#theme{flex:none}html{scroll-padding-top:4rem}h1{font-size:1.9rem}}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
@media print{body{font-size:10.5pt;background:#fff}nav{display:none}.page{display:block;padding:0}section{margin-top:1.6rem}figure,tr,.tiles{break-inside:avoid}h2,h3{break-after:avoid}.scroll,.chart{overflow:visible}.chart svg{min-width:0}tbody tr:hover{background:none}}
`
