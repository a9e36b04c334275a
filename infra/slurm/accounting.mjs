import { randomBytes } from 'node:crypto'
import { execFile } from 'node:child_process'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { daemon } from './daemon.mjs'

const execute = promisify(execFile)

const accepts = (port) =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => { socket.destroy(); resolve(true) })
    socket.once('error', () => resolve(false))
  })

/** MariaDB and slurmdbd in the cluster's folder, the cluster registered with them. Returns {dbd}. */
export const startAccounting = async ({ folder, env, dbdPort, databasePort, user, begin, mustRun, cluster }) => {
  const data = join(folder, 'database')
  const socket = join(folder, 'database.socket')
  mkdirSync(data)
  await execute('mariadb-install-db', ['--no-defaults', `--datadir=${data}`, `--user=${user}`, '--auth-root-authentication-method=normal', '--skip-test-db'], { env })
  await begin(daemon({
    name: 'mariadbd', program: 'mariadbd', env, logFile: join(folder, 'mariadbd.log'),
    args: ['--no-defaults', `--datadir=${data}`, `--socket=${socket}`, `--user=${user}`, `--port=${databasePort}`, '--bind-address=127.0.0.1', `--pid-file=${folder}/mariadbd.pid`, '--innodb-buffer-pool-size=64M', '--innodb-lock-wait-timeout=900'],
    ready: () => accepts(databasePort),
  }))
  const password = randomBytes(16).toString('hex')
  await execute('mariadb', ['--no-defaults', `--socket=${socket}`, '--user=root', `--execute=create database slurm; create user 'slurm'@'%' identified by '${password}'; grant all on slurm.* to 'slurm'@'%';`], { env })
  const conf = join(folder, 'slurmdbd.conf')
  const values = {
    AuthType: 'auth/munge', AuthInfo: `socket=${folder}/munge/socket`, DbdHost: hostname(), DbdAddr: '127.0.0.1', DbdPort: dbdPort, SlurmUser: user, PidFile: `${folder}/slurmdbd.pid`,
    StorageType: 'accounting_storage/mysql', StorageHost: '127.0.0.1', StoragePort: databasePort, StorageUser: 'slurm', StoragePass: password, StorageLoc: 'slurm', CommunicationParameters: 'NoInAddrAny',
  }
  writeFileSync(conf, `${Object.entries(values).map(([name, value]) => `${name}=${value}`).join('\n')}\n`, { mode: 0o600 })
  chmodSync(conf, 0o600)
  const dbd = await begin(daemon({ name: 'slurmdbd', program: 'slurmdbd', args: ['-D'], env, logFile: join(folder, 'slurmdbd.log'), ready: () => accepts(dbdPort) }))
  await mustRun('sacctmgr', ['-i', 'add', 'cluster', cluster])
  return { dbd }
}
