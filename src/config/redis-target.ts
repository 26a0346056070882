import type { SettingName, Settings } from './settings.ts'

export interface Address { host: string, port: number }

/** Where Redis is; `undefined` asks for the embedded one. */
export type RedisTarget =
  | { kind: 'single', host: string, port: number, tls: boolean, username?: string, password?: string, db: number }
  | { kind: 'cluster', nodes: Address[], tls: boolean, username?: string, password?: string }
  | { kind: 'sentinel', sentinels: Address[], name: string, tls: boolean, username?: string, password?: string, db: number }

/** Reads the four ways to name a Redis; at most one may be used. */
export function redisTarget (settings: Settings, problems: string[]): RedisTarget | undefined {
  const credentials = {
    ...(settings.REDIS_USERNAME === undefined ? {} : { username: settings.REDIS_USERNAME }),
    ...(settings.REDIS_PASSWORD === undefined ? {} : { password: settings.REDIS_PASSWORD })
  }
  const tls = settings.REDIS_TLS
  const given = [settings.REDIS_URL ?? settings.REDIS_ADDR, settings.REDIS_CLUSTER, settings.REDIS_SENTINELS].filter(value => value !== undefined)
  if (given.length > 1) problems.push('REDIS_URL or REDIS_ADDR, REDIS_CLUSTER, REDIS_SENTINELS: give only one of them')
  if (settings.REDIS_CLUSTER !== undefined) {
    if (settings.REDIS_DB !== 0) problems.push('REDIS_DB: must be 0 with REDIS_CLUSTER')
    return { kind: 'cluster', nodes: addresses('REDIS_CLUSTER', settings.REDIS_CLUSTER, problems), tls, ...credentials }
  }
  if (settings.REDIS_SENTINELS !== undefined) {
    const sentinels = addresses('REDIS_SENTINELS', settings.REDIS_SENTINELS, problems)
    return { kind: 'sentinel', sentinels, name: settings.REDIS_SENTINEL_NAME, tls, db: settings.REDIS_DB, ...credentials }
  }
  if (settings.REDIS_URL !== undefined) return fromUrl(settings.REDIS_URL, settings.REDIS_DB, credentials, problems)
  if (settings.REDIS_ADDR === undefined) return undefined
  const [address] = addresses('REDIS_ADDR', [settings.REDIS_ADDR], problems)
  return address && { kind: 'single', ...address, tls, db: settings.REDIS_DB, ...credentials }
}

function fromUrl (text: string, db: number, credentials: { username?: string, password?: string }, problems: string[]): RedisTarget | undefined {
  try {
    const url = new URL(text)
    const path = url.pathname.replace('/', '')
    if (path !== '' && !/^\d{1,2}$/.test(path)) throw new Error('database')
    if (url.hostname === '') throw new Error('host')
    return {
      kind: 'single',
      host: url.hostname.replace(/^\[|\]$/g, ''),
      port: url.port === '' ? 6379 : Number(url.port),
      tls: url.protocol === 'rediss:',
      db: path === '' ? db : Number(path),
      ...credentials,
      ...(url.username === '' ? {} : { username: decodeURIComponent(url.username) }),
      ...(url.password === '' ? {} : { password: decodeURIComponent(url.password) })
    }
  } catch {
    problems.push('REDIS_URL: must be redis://[user:password@]host:port[/db]')
    return undefined
  }
}

/** Reads `host:port` entries; reports the variable's name, once. */
export function addresses (name: SettingName, texts: readonly string[], problems: string[]): Address[] {
  const parsed: Address[] = []
  for (const text of texts) {
    const match = /^(?:\[([0-9a-fA-F:]+)\]|([^\s:/]+)):(\d{1,5})$/.exec(text)
    const port = Number(match?.[3])
    const host = match?.[1] ?? match?.[2]
    if (host === undefined || port < 1 || port > 65_535) {
      problems.push(`${name}: each entry must be host:port`)
      return parsed
    }
    parsed.push({ host, port })
  }
  return parsed
}
