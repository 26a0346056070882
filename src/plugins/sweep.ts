import fp from 'fastify-plugin'

/** Work that is done for every slot once per interval, by one instance at a time. Must be harmless when done twice. */
export interface SweepTask {
  name: string
  run: (slots: readonly number[]) => Promise<void>
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Registers a task; call it while the plugins load. */
    addSweepTask: (task: SweepTask) => void
  }
}

/**
 * The clock of everything that happens without a request: takes the pulse, and where it is this instance's turn runs the tasks.
 * Sharing the slots among instances saves work; nothing is wrong when two sweep the same one.
 */
export default fp<{ sweepMs: number }>(async function sweep (fastify, { sweepMs }) {
  const tasks: SweepTask[] = []
  let timer: NodeJS.Timeout | undefined
  let closed = false
  let running: Promise<void> = Promise.resolve()

  const round = async (): Promise<void> => {
    const { slots } = await fastify.store.pulse.takeAll()
    if (slots.length === 0) return
    for (const task of tasks) {
      try {
        await task.run(slots)
      } catch (error) {
        fastify.log.warn({ err: error, task: task.name }, 'sweep task failed; it is tried again at the next sweep')
      }
    }
  }
  const schedule = (): void => {
    if (closed) return
    timer = setTimeout(() => { running = round().finally(schedule) }, sweepMs * (0.9 + Math.random() * 0.2))
    timer.unref()
  }

  fastify.decorate('addSweepTask', (task: SweepTask) => { tasks.push(task) })
  fastify.addHook('onReady', async () => { schedule() })
  fastify.addHook('onClose', async () => {
    closed = true
    clearTimeout(timer)
    await running
  })
}, { name: 'sweep', dependencies: ['redis'] })
