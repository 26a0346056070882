import t from 'tap'
import { PartitionQueue } from '../../src/modules/event/partition-queue.ts'
import { waitFor } from '../support/wait-for.ts'

t.test('closing waits for nothing that a broker owes', async t => {
  const requests: number[] = []
  const queue = new PartitionQueue({
    topic: 'playback.events',
    partition: 0,
    // As the client does while its broker is away: it tries for ever.
    send: async ({ messages }) => { requests.push(messages.length); return await new Promise(() => {}) },
    renew: async () => {}
  })
  const add = async (key: string) => await queue.add([{ key, value: '{}', headers: {} }]).then(() => 'sent', (error: Error) => error.message)
  const underWay = add('a')
  await waitFor('a request', () => requests.length === 1)
  const waiting = add('b')
  queue.close()
  t.strictSame(await Promise.all([underWay, waiting, add('c')]), Array(3).fill('the event sink is closed'))
  t.strictSame(requests, [1], 'nothing is sent any more')
})
