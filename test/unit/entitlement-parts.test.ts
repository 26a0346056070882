import t from 'tap'
import { readAvailability, readEntitlement } from '../../src/modules/entitlement/answers.ts'
import { Circuit, Guarded } from '../../src/modules/entitlement/circuit.ts'
import { RetryBudget } from '../../src/modules/entitlement/retry-budget.ts'

t.test('a retry budget bounds the burst after many calls without any', t => {
  const budget = new RetryBudget({ capacity: 5 })
  for (let call = 0; call < 10_000; call++) budget.deposit()
  t.same(Array.from({ length: 6 }, () => budget.withdraw()), [true, true, true, true, true, false])
  t.end()
})

t.test('a circuit refuses at once whoever comes while its probe runs', async t => {
  let nowMs = 0
  const changes = new Array<boolean>()
  const circuit = new Circuit({ clock: () => nowMs, onChange: open => { changes.push(open) } })
  for (let failure = 0; failure < 10; failure++) await circuit.run(async () => new Guarded('bad', true))
  nowMs += 5_000
  const { promise, resolve } = Promise.withResolvers<Guarded<string>>()
  const probe = circuit.run(async () => await promise)
  t.equal(await circuit.run(async () => new Guarded('good', false)), undefined)
  resolve(new Guarded('good', false))
  t.equal(await probe, 'good')
  t.equal(await circuit.run(async () => new Guarded('good', false)), 'good')
  t.same(changes, [true, false])
})

t.test('a wall clock set back does not keep the circuit open', async t => {
  let nowMs = 0
  const circuit = new Circuit({ clock: () => nowMs })
  for (let failure = 0; failure < 10; failure++) await circuit.run(async () => new Guarded('bad', true))
  const { now } = Date
  t.teardown(() => { Date.now = now })
  Date.now = () => now() - 86_400_000
  t.equal(await circuit.run(async () => new Guarded('good', false)), undefined)
  nowMs += 5_000
  t.equal(await circuit.run(async () => new Guarded('good', false)), 'good')
})

t.test('only answers of the agreed shape count', t => {
  t.same(readEntitlement({ entitled: true, max_streams: 100, plan: 'gold', reason: 'x' }), { answer: 'yes', value: { limit: 100 } })
  t.same(readEntitlement({ entitled: false }), { answer: 'no', reason: undefined })
  t.same(readAvailability({ available: true, more: [1] }), { answer: 'yes', value: true })
  for (const max of [0, 101, -1, 1.5, '3', null, true]) t.equal(readEntitlement({ entitled: true, max_streams: max }), undefined, `max_streams ${max}`)
  for (const entitled of ['yes', 'true', 1, null, undefined, {}, []]) t.equal(readEntitlement({ entitled }), undefined, `entitled ${JSON.stringify(entitled)}`)
  for (const body of [null, undefined, true, 'true', 1, [], [true], {}]) {
    t.equal(readEntitlement(body), undefined)
    t.equal(readAvailability(body), undefined)
  }
  t.equal(readAvailability({ available: false, reason: 5 }), undefined)
  t.end()
})

t.test('a reason is one printable line of at most 200 characters', t => {
  const reasonOf = (reason: string) => {
    const verdict = readAvailability({ available: false, reason })
    return verdict?.answer === 'no' ? verdict.reason : 'no verdict'
  }
  t.equal(reasonOf('not in your region'), 'not in your region')
  t.equal(reasonOf('  a\r\nSet-Cookie:\u0000\u001b[31m b\u202e '), 'a Set-Cookie: [31m b')
  t.equal(reasonOf(' \n\t'), undefined)
  t.equal(reasonOf('x'.repeat(60_000))?.length, 200)
  t.equal(reasonOf(`${'x'.repeat(199)}😀`), 'x'.repeat(199), 'no half characters')
  t.equal(reasonOf('a\ud800b'), 'a b')
  t.equal(reasonOf('nicht verfügbar 不可用'), 'nicht verfügbar 不可用')
  t.end()
})
