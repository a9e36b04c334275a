import { readConfig } from '../config.ts'
import { connect, type Session } from '../connect.ts'

/** Connects, does one thing and closes the connection again, so that the process can end. */
export const withSession = async <T>(stateDir: string | undefined, work: (session: Session) => Promise<T>): Promise<T> => {
  const session = await connect(readConfig({ stateDir }))
  try {
    return await work(session)
  } finally {
    await session.close()
  }
}
