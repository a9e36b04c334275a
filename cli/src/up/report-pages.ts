import { readFile, readdir, realpath, stat } from 'node:fs/promises'
import { basename, extname, join, sep } from 'node:path'
import { serve } from '@hono/node-server'
import { Hono } from 'hono'
import { html } from 'hono/html'
import { CliError } from '../cli-error.ts'

const types: Readonly<Record<string, string>> = { '.html': 'text/html; charset=utf-8', '.json': 'application/json', '.svg': 'image/svg+xml', '.md': 'text/plain; charset=utf-8', '.jsonl': 'text/plain; charset=utf-8' }
const deepest = 3
const style = 'body{font:15px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;color-scheme:light dark}td{padding:.2rem 1.5rem .2rem 0}td+td{opacity:.7;font-variant-numeric:tabular-nums}'

interface Page {
  path: string
  writtenMs: number
}

const pagesUnder = async (root: string, folder = '', depth = 0): Promise<Page[]> => {
  const entries = await readdir(join(root, folder), { withFileTypes: true }).catch(() => [])
  const pages = await Promise.all(
    entries.map(async (entry): Promise<Page[]> => {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`
      if (entry.isDirectory()) return depth < deepest ? pagesUnder(root, path, depth + 1) : []
      if (!entry.isFile() || extname(path) !== '.html') return []
      return [{ path, writtenMs: (await stat(join(root, path))).mtimeMs }]
    }),
  )
  return pages.flat().sort((a, b) => b.writtenMs - a.writtenMs)
}

const policy = (script: string): string => `default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src ${script}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`

/** A report states the digest of its one script; nothing else may run. */
const scriptOf = (page: string): string => /script-src ('sha256-[A-Za-z0-9+/=]{44}')/.exec(page.slice(0, 4096))?.[1] ?? "'none'"

/** The file a request names, or null if it lies outside the folder, also by way of a link. */
const insideOf = async (root: string, path: string): Promise<string | null> => {
  try {
    const real = await realpath(join(root, path))
    return real.startsWith((await realpath(root)) + sep) && (await stat(real)).isFile() ? real : null
  } catch {
    return null
  }
}

export const reportPages = (reportsDir: string): Hono => {
  const app = new Hono()
  app.use(async (c, next) => {
    // another site's page whose name was made to point here must not read reports
    const host = (c.req.header('host') ?? '').replace(/:\d+$/, '')
    if (host !== '127.0.0.1' && host !== 'localhost') return c.text('expected host 127.0.0.1 or localhost', 421)
    await next()
    c.header('X-Content-Type-Options', 'nosniff')
    c.header('Referrer-Policy', 'no-referrer')
    c.header('Cache-Control', 'no-store')
    if (!c.res.headers.has('Content-Security-Policy')) c.header('Content-Security-Policy', policy("'none'"))
    return undefined
  })
  app.get('/', async (c) => {
    const pages = await pagesUnder(reportsDir)
    const rows = pages.map((page) => html`<tr><td><a href="/${page.path.split('/').map(encodeURIComponent).join('/')}">${page.path}</a></td><td>${new Date(page.writtenMs).toISOString().slice(0, 16).replace('T', ' ')}</td></tr>`)
    return c.html(html`<!doctype html><html lang="en"><meta charset="utf-8"><title>cpt reports</title><style>${style}</style><h1>Reports</h1>${pages.length === 0 ? html`<p>None yet: a run writes one when it ends.</p>` : html`<table>${rows}</table>`}</html>`)
  })
  app.get('/*', async (c) => {
    const file = await insideOf(reportsDir, decodeURIComponent(c.req.path))
    const type = file === null ? undefined : types[extname(file)]
    if (file === null || type === undefined) return c.text(`no report ${basename(c.req.path)}`, 404)
    const body = await readFile(file)
    c.header('Content-Security-Policy', policy(extname(file) === '.html' ? scriptOf(body.toString('utf8', 0, 4096)) : "'none'"))
    return c.body(body, 200, { 'Content-Type': type })
  })
  return app
}

/** Serves the report pages on this machine alone; resolves when it listens. */
export const serveReports = (reportsDir: string, port: number): Promise<{ stop: () => Promise<void> }> =>
  new Promise((resolve, reject) => {
    const server = serve({ fetch: reportPages(reportsDir).fetch, hostname: '127.0.0.1', port }, () =>
      resolve({
        stop: () =>
          new Promise((done) => {
            server.close(() => done())
            if ('closeAllConnections' in server) server.closeAllConnections()
          }),
      }),
    )
    server.once('error', (error: Error) => reject(new CliError('conflict', `report pages: ${error.message}`, 'Give another port with --reports-port.')))
  })
