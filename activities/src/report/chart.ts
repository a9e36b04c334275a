import { BarChart, CustomChart, LineChart, ScatterChart } from 'echarts/charts'
import { GridComponent, MarkLineComponent, TitleComponent } from 'echarts/components'
import { init, use, type EChartsCoreOption } from 'echarts/core'
import { LabelLayout } from 'echarts/features'
import { SVGRenderer } from 'echarts/renderers'
import { h, trusted, type Html } from './html.ts'

use([BarChart, LineChart, ScatterChart, CustomChart, GridComponent, MarkLineComponent, TitleComponent, LabelLayout, SVGRenderer])

/** Colours are variables of the page, so one picture serves light, dark and print. */
export const ink = { text: 'var(--ink)', soft: 'var(--soft)', line: 'var(--line)', good: 'var(--good)', bad: 'var(--bad)', warn: 'var(--warn)', accent: 'var(--c1)', paper: 'var(--paper)' }
export const colour = (i: number): string => `var(--c${(i % 8) + 1})`

export const widthPx = 1040

/** Draws a chart as SVG in the page. `alt` says in words what it shows, for those who cannot see it. */
export const chart = (id: string, alt: string, heightPx: number, option: EChartsCoreOption): Html => {
  const drawing = init(null, null, { renderer: 'svg', ssr: true, width: widthPx, height: heightPx })
  drawing.setOption({ animation: false, backgroundColor: 'transparent', textStyle: { fontFamily: 'inherit', color: ink.text }, ...option })
  const svg = drawing.renderToSVGString({ useViewBox: true })
  drawing.dispose()
  return h`<div class="chart">${trusted(embedded(svg, id, alt))}</div>`
}

/**
 * The drawing's style sheet and hover data go (nothing moves here), and its ids carry the chart's name: the library
 * counts them per process, so the same run would give another page each time.
 */
const embedded = (svg: string, id: string, alt: string): string =>
  svg
    .replace(/<style ?>[^]*?<\/style>/g, '')
    .replace(/ (?:class|ecmeta_[a-z_]+)="[^"<>]*"/g, '')
    .replace(/(<clipPath id="|url\(#)zr\d+-/g, `$1${id}-`)
    .replace(/^<svg [^>]*>/, (tag) => `<svg role="img" aria-label="${attribute(alt)}"${/ viewBox="[\d. ]+"/.exec(tag)?.[0] ?? ''}>`)

const attribute = (text: string): string => h`${text}`.toString()

const label = { color: ink.soft, fontSize: 12 }
const name = { color: ink.soft, fontSize: 12 }

export const valueAxis = (title: string, more: Record<string, unknown> = {}) => ({
  type: 'value',
  name: title,
  nameLocation: 'middle',
  nameGap: 30,
  nameTextStyle: name,
  axisLine: { show: false },
  axisTick: { show: false },
  axisLabel: label,
  splitLine: { lineStyle: { color: ink.line } },
  ...more,
})

export const categoryAxis = (names: readonly string[], more: Record<string, unknown> = {}) => ({
  type: 'category',
  data: [...names],
  nameLocation: 'middle',
  nameGap: 30,
  nameTextStyle: name,
  axisLine: { lineStyle: { color: ink.line } },
  axisTick: { show: false },
  axisLabel: { ...label, color: ink.text, interval: 0 },
  ...more,
})

/** Names of colours, as text beside the picture: it wraps, and it can be selected. */
export const legend = (items: readonly { name: string; colour: string; opacity?: number; shape?: 'line' | 'dash' | 'dot' }[]): Html =>
  h`<ul class="legend">${items.map((i) => h`<li><i class="${i.shape ?? 'box'}" style="--k:${i.colour};opacity:${i.opacity ?? 1}"></i>${i.name}</li>`)}</ul>`
