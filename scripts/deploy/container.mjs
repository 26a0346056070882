import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { track } from '../../test/support/children.ts'
import { waitFor } from '../../test/support/wait-for.ts'

/** crun refuses a machine with both kinds of control groups; in a mount namespace of its own it sees one. */
const CRUN = `
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
  umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup || exit 125
fi
exec crun --cgroup-manager=disabled "$@"`
const crun = (...args) => ['unshare', ['--mount', '--propagation', 'private', 'sh', '-c', CRUN, 'crun', ...args]]

/**
 * A container of the image as an engine makes it under the chart's and the compose file's restrictions: the image's user, command and environment,
 * a process id namespace of its own, root read-only, no capability, no new privileges. The network is this process's own. No seccomp profile.
 *
 * @param {{ rootfs: string, config: object }} image folder of its files, and `Docker.config` of `buildah inspect`
 * @param {{ env: Record<string, string>, command?: string[], binds?: Record<string, string>, tmpfs?: Record<string, string[]> }} options
 */
export async function runContainer ({ rootfs, config }, { env, command = config.Cmd, binds = {}, tmpfs = {} }) {
  const bundle = mkdtempSync(join(tmpdir(), 'viewing-container-'))
  const state = ['--root', join(bundle, 'state')]
  const id = basename(bundle)
  if (spawnSync(...crun('spec'), { cwd: bundle }).status !== 0) throw new Error('crun spec failed')
  const file = join(bundle, 'config.json')
  const spec = JSON.parse(readFileSync(file, 'utf8'))
  const [uid, gid] = config.User.split(':').map(Number)
  Object.assign(spec.process, {
    terminal: false,
    user: { uid, gid },
    cwd: config.WorkingDir,
    args: [...config.Entrypoint ?? [], ...command],
    env: [...config.Env, ...Object.entries(env).map(([name, value]) => `${name}=${value}`)],
    noNewPrivileges: true,
    capabilities: Object.fromEntries(Object.keys(spec.process.capabilities).map(kind => [kind, []]))
  })
  spec.root = { path: rootfs, readonly: true }
  spec.linux.namespaces = spec.linux.namespaces.filter(({ type }) => type !== 'network')
  spec.mounts.push(
    ...Object.entries(binds).map(([destination, source]) => ({ destination, source, type: 'bind', options: ['bind', 'ro'] })),
    ...Object.entries(tmpfs).map(([destination, options]) => ({ destination, source: 'tmpfs', type: 'tmpfs', options: ['nosuid', 'nodev', ...options] }))
  )
  writeFileSync(file, JSON.stringify(spec))

  const pidFile = join(bundle, 'pid')
  const child = spawn(...crun(...state, 'run', '--pid-file', pidFile, id), { cwd: bundle, stdio: ['pipe', 'pipe', 'pipe'] })
  track(child)
  const lines = []
  createInterface({ input: child.stdout }).on('line', line => { lines.push(line) })
  createInterface({ input: child.stderr }).on('line', line => { lines.push(line) })
  const exited = once(child, 'exit').then(([code]) => {
    rmSync(bundle, { recursive: true, force: true })
    return code
  })
  const readPid = () => {
    if (child.exitCode !== null) throw new Error(`the container ended: ${lines.join('\n')}`)
    try {
      return Number(readFileSync(pidFile, 'utf8')) || undefined
    } catch {
      return undefined
    }
  }
  const pid = await waitFor('a container', readPid)
  return {
    pid,
    lines,
    exited,
    stdin: child.stdin,
    /** Its process sees its own number as 1, so only what it handles reaches it. */
    signal: name => { process.kill(pid, name) },
    /** Runs a program in it. */
    exec: (user, ...args) => spawnSync(...crun(...state, 'exec', '--user', user, id, ...args), { encoding: 'utf8' }),
    close: async () => {
      if (child.exitCode === null) process.kill(pid, 'SIGKILL')
      await exited
    }
  }
}

/** Lines that are JSON objects, as the service logs them. */
export const logged = lines => lines.filter(line => line.startsWith('{')).map(line => JSON.parse(line))
