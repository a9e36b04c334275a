/** Bundles the worker and the CLI where their sources have changed. */
export function buildBundles(): Promise<void>
