import type { DeviceName } from '@cpt/activities/plan-training'

// of their own, so that `cpt --help` need not load what a plan needs
const named: Record<DeviceName, true> = { 'h200': true, 'h100': true, 'a100': true, 'a100-40': true, 'b200': true, 'l40s': true, 'cpu': true }
export const deviceNames = Object.keys(named)
