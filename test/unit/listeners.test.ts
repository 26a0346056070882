import { test } from 'tap'
import { Listeners } from '../../src/plugins/plain-http/listeners.ts'

test('listeners of one name are called in the order in which they came, with what was said', async t => {
  const listeners = new Listeners()
  const heard: unknown[] = []
  t.equal(listeners.emit('data', 'nobody hears'), false)
  listeners.on('data', (...said) => { heard.push(['first', ...said]) }).on('end', () => { heard.push('end') }).on('data', (...said) => { heard.push(['second', ...said]) })
  t.equal(listeners.emit('data', 'a', 1), true)
  t.same(heard, [['first', 'a', 1], ['second', 'a', 1]])
})

test('a listener hears who speaks to it', async t => {
  const listeners = new Listeners()
  let speaker: unknown
  listeners.once('close', function (this: unknown) { speaker = this })
  listeners.emit('close')
  t.equal(speaker, listeners)
})

test('one that was removed, or was there for once, hears no more', async t => {
  const listeners = new Listeners()
  const heard: string[] = []
  const [first, middle, last] = ['first', 'middle', 'last'].map(name => () => { heard.push(name) })
  if (first === undefined || middle === undefined || last === undefined) throw new Error('three listeners')
  listeners.on('data', first).on('data', middle).on('data', last).once('data', () => { heard.push('once') })
  listeners.off('data', middle).removeListener('end', first)
  listeners.emit('data')
  listeners.emit('data')
  t.same(heard, ['first', 'last', 'once', 'first', 'last'])
  listeners.removeListener('data', first).off('data', last)
  t.equal(listeners.emit('data'), false)
})

test('listeners that remove each other while one speaks do not keep the rest from hearing', async t => {
  const listeners = new Listeners()
  const heard: string[] = []
  const onData = (): void => {
    heard.push('data')
    listeners.off('end', onData).off('end', onError).off('data', onData)
  }
  const onError = (): void => { heard.push('error') }
  listeners.on('end', onData).on('end', onError).on('end', () => { heard.push('last') })
  listeners.emit('end')
  t.same(heard, ['data', 'last'])
})
