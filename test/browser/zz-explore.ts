import { writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'
import { findChromium } from '../../infra/bootstrap/chromium.mjs'
import { startSmallSystem } from '../harness/small-system.ts'

const system = await startSmallSystem()
const browser = await chromium.launch({ executablePath: findChromium() ?? '', args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'] })
const page = await browser.newPage({ viewport: { width: 1400, height: 1150 } })
page.setDefaultTimeout(15000)
console.log('READY', system.server.uiUrl, system.server.address)
const rl = createInterface({ input: process.stdin })
for await (const line of rl) {
  if (line === 'quit') break
  try {
    const fn = new Function('page', 'system', `return (async () => { ${line} })()`)
    console.log('=>', JSON.stringify(await fn(page, system)))
  } catch (e) { console.log('ERR', String(e).slice(0, 600)) }
  await page.screenshot({ path: '/tmp/sched/shot.png' }).catch(() => undefined)
  console.log('DONE')
}
await browser.close()
await system.stop()
