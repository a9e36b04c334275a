import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { reportPages } from './report-pages.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cpt-pages-'))
  mkdirSync(join(folder, 'reports', 'run-a'), { recursive: true })
  writeFileSync(join(folder, 'reports', 'run-a', 'index.html'), `<meta http-equiv="Content-Security-Policy" content="script-src 'sha256-${'A'.repeat(43)}='">`)
  writeFileSync(join(folder, 'reports', '<img src=x>.html'), '<p>')
  writeFileSync(join(folder, 'secret.html'), 'secret')
  symlinkSync(join(folder, 'secret.html'), join(folder, 'reports', 'link.html'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))
const get = (path: string, host = '127.0.0.1:8234') => reportPages(join(folder, 'reports')).request(`http://127.0.0.1${path}`, { headers: { host } })

test('the list names the reports, escaped', async () => {
  const body = await (await get('/')).text()
  expect(body).toContain('href="/run-a/index.html"')
  expect(body).not.toContain('<img')
})

test('a report is served with the one script it states, and nothing else', async () => {
  const response = await get('/run-a/index.html')
  expect(response.status).toBe(200)
  expect(response.headers.get('content-security-policy')).toContain(`default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-${'A'.repeat(43)}='`)
  expect(response.headers.get('x-content-type-options')).toBe('nosniff')
})

test('nothing outside the folder is served, by dots or by links', async () => {
  for (const path of ['/..%2fsecret.html', '/%2e%2e/secret.html', '/link.html', '/run-a', '/absent.html']) expect((await get(path)).status).toBe(404)
})

test('another host name is refused', async () => {
  expect((await get('/', 'evil.example')).status).toBe(421)
  expect((await get('/', 'localhost:8234')).status).toBe(200)
})
