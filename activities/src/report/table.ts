import { h, type Html } from './html.ts'

export interface Column<R> {
  head: string | Html
  cell: (row: R) => Html | string | number
  numeric?: boolean
  code?: boolean
}

/** A table with its numbers aligned right; wide ones scroll inside their own box. */
export const table = <R>(columns: readonly Column<R>[], rows: readonly R[], options: { caption?: string; foot?: Html; tint?: (row: R) => string } = {}): Html => {
  const align = (c: Column<R>): Html | string => (c.numeric === true ? h` class="num"` : '')
  return h`<div class="scroll"><table>${options.caption === undefined ? '' : h`<caption>${options.caption}</caption>`}
<thead><tr>${columns.map((c) => h`<th scope="col"${align(c)}>${c.head}</th>`)}</tr></thead>
<tbody>${rows.map((row) => h`<tr class="${options.tint?.(row) ?? ''}">${columns.map((c) => h`<td${align(c)}>${c.code === true ? h`<code>${c.cell(row)}</code>` : c.cell(row)}</td>`)}</tr>
`)}</tbody>${options.foot === undefined ? '' : h`<tfoot>${options.foot}</tfoot>`}</table></div>`
}

/** A share as a bar behind its number; `mark` puts a second share beside it, as a tick. */
export const bar = (share: number, text: string, mark?: number): Html => h`<span class="bar" style="--w:${width(share)}%${mark === undefined ? '' : `;--m:${width(mark)}%`}"><i></i>${mark === undefined ? '' : h`<b></b>`}<span>${text}</span></span>`

const width = (share: number): string => (Number.isFinite(share) ? Math.max(0, Math.min(1, share)) * 100 : 0).toFixed(1)

/** What lies behind a click, so that the page can be read without it. */
export const details = (summary: string, body: Html): Html => h`<details><summary>${summary}</summary>${body}</details>`

/** A small note in the margin of numbers: what they mean and how they were made. */
export const note = (text: string | Html): Html => h`<p class="note">${text}</p>`

export const figure = (title: string, body: Html, caption: string | Html = ''): Html => h`<figure><figcaption><strong>${title}</strong>${caption === '' ? '' : h`<span>${caption}</span>`}</figcaption>${body}</figure>`

export const badge = (kind: 'good' | 'bad' | 'warn' | 'plain', text: string): Html => h`<span class="badge ${kind}">${text}</span>`
