import { createHash } from 'node:crypto'
import { clean, h, trusted, type Html } from './html.ts'
import { style } from './page-style.ts'

export interface Section {
  id: string
  title: string
  body: Html
}

// all that runs in the page: the switch between light and dark, shown only where it works
const script = `const r=document.documentElement,b=document.getElementById('theme');b.hidden=false;b.onclick=()=>{const d=r.dataset.theme?r.dataset.theme==='dark':matchMedia('(prefers-color-scheme:dark)').matches;r.dataset.theme=d?'light':'dark'}`

const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-${createHash('sha256').update(script).digest('base64')}'; base-uri 'none'; form-action 'none'`

/** One self-contained page: its head, its sections with their contents, its foot; `styles` are added to those of every page. */
export const renderPage = ({ title, head, sections, foot, styles = '' }: { title: string; head: Html; sections: readonly Section[]; foot: Html; styles?: string }): string => {
  const page = h`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${trusted(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>${title}</title>
<style>${trusted(style + styles)}</style>
</head>
<body>
<div class="page">
<nav aria-label="Contents"><button id="theme" type="button" hidden>light / dark</button>
<ol>${sections.map((s) => h`<li><a href="#${s.id}">${s.title}</a></li>`)}</ol></nav>
<main>
${head}
${sections.map((s) => h`<section id="${s.id}"><h2>${s.title}</h2>
${s.body}
</section>
`)}
<footer>${foot}</footer>
</main>
</div>
<script>${trusted(script)}</script>
</body>
</html>
`
  return clean(page.toString())
}
