import { ink } from './chart.ts'
import { clip } from './html.ts'

interface Api {
  coord(at: [number, number]): [number, number]
}

const gapPx = 15

/** Names lines at their right ends, moved apart where they would overlap, each joined to its end by a thin line. */
export const endLabels = (lines: readonly { name: string; value: number; colour: string }[], lastIndex: number, topPx: number, bottomPx: number) => {
  const shown = lines.filter((l) => Number.isFinite(l.value))
  return {
    type: 'custom',
    silent: true,
    data: [[lastIndex, 0]],
    renderItem: (_: unknown, api: Api): object => {
      const ends = shown.map((l) => api.coord([lastIndex, l.value]))
      const ys = spread(ends.map(([, y]) => y), topPx, bottomPx)
      return {
        type: 'group',
        children: shown.flatMap((l, i) => {
          const [x, y] = ends[i] ?? [0, 0]
          const at = ys[i] ?? y
          return [
            { type: 'polyline', shape: { points: [[x + 6, y], [x + 22, at]] }, style: { stroke: l.colour, lineWidth: 1, opacity: 0.6, fill: 'none' } },
            { type: 'text', x: x + 26, y: at, style: { text: clip(l.name, 46), fill: ink.text, fontFamily: 'inherit', fontSize: 11.5, verticalAlign: 'middle' } },
          ]
        }),
      }
    },
  }
}

/** Positions at least `gapPx` apart in the same order, as near to the given ones as the bounds allow. */
export const spread = (ys: readonly number[], top: number, bottom: number): number[] => {
  const order = ys.map((y, i) => ({ y, i })).sort((a, b) => a.y - b.y)
  order.forEach((o, k) => (o.y = Math.max(o.y, k === 0 ? top : (order[k - 1]?.y ?? top) + gapPx)))
  for (let k = order.length - 1; k >= 0; k--) {
    const o = order[k]
    if (o !== undefined) o.y = Math.min(o.y, k === order.length - 1 ? bottom : (order[k + 1]?.y ?? bottom) - gapPx)
  }
  const moved = new Array<number>(ys.length).fill(0)
  for (const o of order) moved[o.i] = o.y
  return moved
}
