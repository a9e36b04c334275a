import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ask, mustRun } from '../bootstrap/run-command.mjs'
import { cliVersion, cliextRevision } from './versions.mjs'

const goMod = `module temporal-cli-build

go 1.25

require github.com/temporalio/cli v${cliVersion}

replace github.com/temporalio/cli/cliext => github.com/temporalio/cli/cliext ${cliextRevision}
`
// without an import, "go mod tidy" would drop the requirement again
const tools = `//go:build tools

package tools

import _ "github.com/temporalio/cli/cmd/temporal"
`

export const goVersion = async () => /go(\d+\.\d+(?:\.\d+)?)/.exec((await ask('go', ['version'])) ?? '')?.[1] ?? null

/** Builds the CLI from its Go modules in `folder`: 4 to 6 minutes on two cores. The build cache grows to gigabytes, so it goes. */
export const buildTemporal = async (folder) => {
  const cache = join(folder, 'go-cache')
  const options = {
    cwd: folder,
    env: { GOCACHE: cache, GOFLAGS: '-mod=mod', CGO_ENABLED: '0', GOWORK: 'off' },
    quiet: true,
    niceness: 10,
    fix: 'Is the Go module proxy reachable? Otherwise install the Temporal CLI yourself: https://docs.temporal.io/cli',
  }
  try {
    writeFileSync(join(folder, 'go.mod'), goMod)
    writeFileSync(join(folder, 'tools.go'), tools)
    await mustRun('go', ['mod', 'tidy'], options)
    await mustRun('go', ['build', '-trimpath', '-ldflags', '-s -w', '-o', join(folder, 'temporal'), 'github.com/temporalio/cli/cmd/temporal'], options)
    return join(folder, 'temporal')
  } finally {
    rmSync(cache, { recursive: true, force: true })
  }
}
