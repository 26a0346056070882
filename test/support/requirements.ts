import { spawnSync } from 'node:child_process'

/** The Redis program on this machine, if it is new enough for scripts with a `#!lua` line. */
export function findRedisProgram (): string | undefined {
  return ['redis-server', 'valkey-server'].find(program => {
    const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' })
    return Number(/v=(\d+)/.exec(stdout ?? '')?.[1]) >= 7
  })
}

/**
 * For tests that need a real server: `t.test(title, { skip }, …)` with `program`. On a laptop without one they are skipped with
 * their reason; in CI nothing is skipped, so a missing part fails: a run without it would prove nothing.
 */
export function requireRedis (): { program: string, skip: string | false } {
  const program = findRedisProgram()
  const missing = program === undefined && process.env.CI !== 'true'
  return { program: program ?? 'redis-server', skip: missing && 'needs redis-server 7 or newer, or valkey-server, on PATH' }
}

/** For tests that need programs of this machine beside Redis; the same rule. */
export function requirePrograms (...programs: string[]): { skip: string | false } {
  const missing = programs.filter(name => spawnSync(name, ['--version']).error !== undefined)
  return { skip: missing.length > 0 && process.env.CI !== 'true' && `needs ${missing.join(' and ')} on PATH` }
}
