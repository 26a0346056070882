import { type ChildProcess } from 'node:child_process'

const running = new Set<ChildProcess>()
const killAll = (): void => { for (const child of running) child.kill('SIGKILL') }
process.on('exit', killAll)
// A test that is ended from outside (a time limit, Ctrl-C) must not leave servers behind.
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, () => { killAll(); process.exit(1) })

/** Sees to it that the child does not outlive this process. */
export function track (child: ChildProcess): void {
  running.add(child)
  child.once('exit', () => { running.delete(child) })
}
