import { targetLrOf, type ConfirmedPoint, type Neighbours } from '@cpt/contracts/model-transfer'
import type { SweepCell } from '@cpt/contracts/sweep'
import type { z } from 'zod'

export type Role = ConfirmedPoint['role']
export interface Planned {
  role: Role
  almr: number
  /** At the proxy. */
  proxyLr: number
  targetLr: number
}

const roles: Record<z.infer<typeof Neighbours>, Role[]> = { almr: ['less-almr', 'more-almr'], peakLr: ['lower-lr', 'higher-lr'], both: ['less-almr', 'more-almr', 'lower-lr', 'higher-lr'] }

/**
 * The chosen cell and its neighbours in the grid of the sweep, one on each side; where the grid ends there is none. The
 * target is tried at `lrFactor` times the proxy's learning rates.
 */
export const confirmationPoints = (chosen: { almr: number; peakLr: number }, cells: readonly SweepCell[], neighbours: z.infer<typeof Neighbours>, lrFactor: number): { points: Planned[]; without: Role[] } => {
  const almr = beside(chosen.almr, cells.map((c) => c.almr))
  const lr = beside(chosen.peakLr, cells.map((c) => c.peakLr))
  const places: Record<Role, { almr: number | undefined; peakLr: number | undefined }> = {
    chosen,
    'less-almr': { ...chosen, almr: almr.below }, 'more-almr': { ...chosen, almr: almr.above },
    'lower-lr': { ...chosen, peakLr: lr.below }, 'higher-lr': { ...chosen, peakLr: lr.above },
  }
  const wanted: Role[] = ['chosen', ...roles[neighbours]]
  const points = wanted.flatMap((role): Planned[] => {
    const { almr: a, peakLr } = places[role]
    return a === undefined || peakLr === undefined ? [] : [{ role, almr: a, proxyLr: peakLr, targetLr: targetLrOf(peakLr, lrFactor) }]
  })
  return { points, without: wanted.filter((role) => !points.some((p) => p.role === role)) }
}

const beside = (value: number, all: readonly number[]): { below: number | undefined; above: number | undefined } => {
  const sorted = [...new Set(all)].sort((a, b) => a - b)
  return { below: sorted.filter((v) => v < value).at(-1), above: sorted.find((v) => v > value) }
}
