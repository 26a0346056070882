/**
 * Loaded into the built service with `--import`: ends the process by SIGKILL at the point that `CRASH_POINT` names, once SIGWINCH has
 * armed it. A point is `before:` or `after:` one call that the service waits for: a Redis command or script by its name, a record
 * sent to Kafka (`send`), a request to an upstream (`upstream`). So every await of the service is a point, without a line in it.
 */
import { createHash } from 'node:crypto'
import { subscribe } from 'node:diagnostics_channel'
import { Redis } from 'ioredis'
import kafkajs from 'kafkajs'
import { readScript, SCRIPTS } from '../../dist/redis/scripts.js'

const point = process.env.CRASH_POINT
let armed = false
process.on('SIGWINCH', () => {
  armed = true
  process.stdout.write('{"msg":"armed"}\n')
})
const reach = name => { if (armed && name === point) process.kill(process.pid, 'SIGKILL') }

const scripts = new Map(Object.keys(SCRIPTS).flatMap(name => {
  const text = readScript(name)
  // EVAL of a script is the same point as EVALSHA.
  return [[createHash('sha1').update(text).digest('hex'), name], [text, name]]
}))
const { sendCommand } = Redis.prototype
Redis.prototype.sendCommand = function (command, ...rest) {
  const name = scripts.get(String(command.args[0])) ?? command.name
  reach(`before:${name}`)
  const reply = sendCommand.call(this, command, ...rest)
  command.promise.then(() => { reach(`after:${name}`) }, () => {})
  return reply
}

const { producer } = kafkajs.Kafka.prototype
kafkajs.Kafka.prototype.producer = function (...args) {
  const made = producer.apply(this, args)
  const { send } = made
  return {
    ...made,
    send: async request => {
      reach('before:send')
      const answer = await send(request)
      reach('after:send')
      return answer
    }
  }
}

subscribe('undici:request:create', () => { reach('before:upstream') })
subscribe('undici:request:trailers', () => { reach('after:upstream') })
