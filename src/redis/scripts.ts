import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Cluster, Redis, Result } from 'ioredis'

/**
 * The registry of Lua scripts: one file in `lua/` is one atomic operation is one method of the client.
 * Most replies are flat arrays that begin with one of the codes below; each file's header says it.
 */
export const SCRIPTS = {
  createSession: { file: 'create-session.lua', numberOfKeys: undefined },
  heartbeat: { file: 'heartbeat.lua', numberOfKeys: undefined },
  lastBeats: { file: 'last-beats.lua', numberOfKeys: undefined },
  changeStatus: { file: 'change-status.lua', numberOfKeys: 2 },
  endSession: { file: 'end-session.lua', numberOfKeys: 6 },
  dueSessions: { file: 'due-sessions.lua', numberOfKeys: undefined },
  reapSession: { file: 'reap-session.lua', numberOfKeys: 6 },
  outboxLengths: { file: 'outbox-lengths.lua', numberOfKeys: undefined },
  acknowledgeEvents: { file: 'acknowledge-events.lua', numberOfKeys: undefined },
  trimOutbox: { file: 'trim-outbox.lua', numberOfKeys: 2 },
  rateLimit: { file: 'rate-limit.lua', numberOfKeys: undefined },
  pulse: { file: 'pulse.lua', numberOfKeys: 1 }
} as const satisfies Record<string, { file: string, numberOfKeys: number | undefined }>

export type ScriptName = keyof typeof SCRIPTS

export const CreateCodes = { admitted: 1, exists: 2, ended: 3, members: 4, refused: 5 } as const
export const ChangeCodes = { changed: 1, unchanged: 2, absent: 0 } as const
export const EndCodes = { ended: 1, alreadyEnded: 2, absent: 0 } as const
export const ReapCodes = { expired: 1, alive: 2, gone: 0 } as const

type Key = string
type Arg = string | number

declare module 'ioredis' {
  interface RedisCommander<Context> {
    createSession (numberOfKeys: number, ...keysAndArgs: Arg[]): Result<[code: number, nowMs: number, active: number, ...rest: string[]], Context>
    heartbeat (numberOfKeys: number, ...sessionsGapAndBlocks: Arg[]): Result<[nowMs: number, renewals: string], Context>
    lastBeats (numberOfKeys: number, ...sessions: Key[]): Result<string, Context>
    changeStatus (session: Key, outbox: Key, status: string, type: string, position: string, heardAt: string, metadata: string):
    Result<[code: number, nowMs: number, entryId: string, record: string], Context>
    endSession (session: Key, ended: Key, slots: Key, index: Key, due: Key, outbox: Key, sessionId: string, type: string, reason: string, endReason: string,
      endedBy: string, endedTtlMs: number, position: string, heardAt: string, metadata: string): Result<[code: number, nowMs: number, entryId: string, ended: string], Context>
    dueSessions (numberOfKeys: number, ...duesNowAndLimit: Arg[]): Result<string[], Context>
    reapSession (session: Key, ended: Key, slots: Key, index: Key, due: Key, outbox: Key, sessionId: string, timeoutMs: number, graceUntilMs: number, endedTtlMs: number):
    Result<[code: number, nowMs: number, entryId: string, ended: string], Context>
    outboxLengths (numberOfKeys: number, ...outboxes: Key[]): Result<number[], Context>
    acknowledgeEvents (numberOfKeys: number, ...outboxesAndEntries: Arg[]): Result<[removed: number], Context>
    trimOutbox (outbox: Key, lost: Key, events: number): Result<[removed: number, lost: number], Context>
    rateLimit (numberOfKeys: number, ...usersAndPerMinute: Arg[]): Result<[nowMs: number, waitsMs: string], Context>
    pulse (pulse: Key, maxGapMs: number, graceMs: number, sweepMs: number, ttlMs: number, sweep: '0' | '1'):
    Result<[nowMs: number, graceUntilMs: number, mine: number], Context>
  }
}

/** Any client the service speaks to Redis with, its scripts defined. */
export type RedisClient = Redis | Cluster

export interface ScriptOptions {
  /** False for a server that cannot read the `#!lua` line; it is blanked, so line numbers stay. */
  shebang: boolean
  /** Lua placed after the first line; tests put a guard there that fails on undeclared keys. */
  prelude?: string
}

const LUA_FOLDER = new URL('../../lua/', import.meta.url)

/** The text of a script as it is sent to Redis, its includes in place. */
export function readScript (name: ScriptName, options: ScriptOptions = { shebang: true }): string {
  const [first = '', ...rest] = readFileSync(new URL(SCRIPTS[name].file, LUA_FOLDER), 'utf8').split('\n')
  const body = rest.map(line => {
    const include = /^--- @include ([a-z-]+)$/.exec(line)?.[1]
    return include === undefined ? line : readFileSync(new URL(`include/${include}.lua`, LUA_FOLDER), 'utf8')
  })
  return [options.shebang ? first : '', options.prelude ?? '', ...body].join('\n')
}

/**
 * Gives a client a method for every script: EVALSHA, and EVAL on a server that does not know the script (a new one, a restart, a failover,
 * SCRIPT FLUSH), which then has run nothing. ioredis' `defineCommand` does the same with a class for each script, whose commands outlive every
 * collection but the major ones (see `young-commands.ts`).
 */
export function defineScripts (client: RedisClient, options?: ScriptOptions): void {
  for (const name of Object.keys(SCRIPTS).filter((key): key is ScriptName => key in SCRIPTS)) {
    const { numberOfKeys } = SCRIPTS[name]
    const text = readScript(name, options)
    const sha = createHash('sha1').update(text).digest('hex')
    Reflect.set(client, name, async (...args: Arg[]): Promise<unknown> => {
      const [keys, ...rest] = numberOfKeys === undefined ? args : [numberOfKeys, ...args]
      if (keys === undefined) throw new TypeError(`${name}: number of keys expected`)
      try {
        return await client.evalsha(sha, keys, ...rest)
      } catch (error) {
        if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
        return await client.eval(text, keys, ...rest)
      }
    })
  }
}
