import { html, raw } from 'hono/html'

/** Markup whose every inserted string has been escaped. */
export type Html = ReturnType<typeof raw>

/** Tagged template: strings are escaped, markup made by `h` goes in as it is. */
export const h = (strings: TemplateStringsArray, ...values: unknown[]): Html => {
  const made = html(strings, ...values)
  if (made instanceof Promise) throw new TypeError('report: a template was given a promise')
  return made
}

/** Markup that is known to be safe: the stylesheet, and what the chart library escaped. */
export const trusted = (markup: string): Html => raw(markup)

/**
 * Makes characters visible that hide or reorder text: controls, bidirectional overrides, zero-width marks, tags, lone
 * surrogates. The joiners that Persian and Indic scripts and emoji need stay.
 */
export const clean = (text: string): string => text.replace(/(?![\t\n\r\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (c) => `⟨U+${(c.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}⟩`)

/** Cuts a long name for a chart or a table cell. */
export const clip = (text: string, max = 48): string => {
  const characters = Array.from(text)
  return characters.length <= max ? text : `${characters.slice(0, max - 1).join('')}…`
}
