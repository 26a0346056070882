import { startBinary } from './redis-binary.ts'
import { startInProcess } from './redis-in-process.ts'

/** A Redis that lives as long as this process and keeps nothing. It listens on 127.0.0.1 only. */
export interface EmbeddedRedis {
  /** `js` is the in-process one: it cannot read a script's `#!lua` line. */
  kind: 'binary' | 'js'
  /** One line for the log: which server, where, and what was passed over on the way. */
  description: string
  host: string
  port: number
  /** Ends the server and its connections; repeating it is harmless. */
  close: () => Promise<void>
}

export interface EmbeddedRedisOptions {
  /** `js` goes straight to the in-process server. Default `binary`: a server on PATH, and the in-process one only without. */
  prefer?: 'binary' | 'js'
}

const PROGRAMS = ['redis-server', 'valkey-server']

/**
 * Starts a Redis for development and demonstrations: `redis-server` or `valkey-server` from PATH, else `js-redis-server` in this process,
 * which is functional and never a base for figures.
 */
export async function startEmbeddedRedis ({ prefer = 'binary' }: EmbeddedRedisOptions = {}): Promise<EmbeddedRedis> {
  const passedOver: string[] = []
  for (const program of prefer === 'binary' ? PROGRAMS : []) {
    const attempt = await startBinary(program)
    if (attempt.started) return { kind: 'binary', ...attempt.server, description: describe(attempt.server, passedOver) }
    passedOver.push(attempt.reason)
  }
  const server = await startInProcess()
  return { kind: 'js', ...server, description: describe(server, passedOver) }
}

function describe ({ description, host, port }: { description: string, host: string, port: number }, passedOver: string[]): string {
  return `${description} on ${host}:${port}${passedOver.length === 0 ? '' : ` (${passedOver.join('; ')})`}`
}
