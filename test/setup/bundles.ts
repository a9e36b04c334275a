import { buildBundles } from '../../infra/bootstrap/bundles.mjs'

/** The worker of the tests is the bundled one: made from today's sources before the first test. */
export const setup = buildBundles
