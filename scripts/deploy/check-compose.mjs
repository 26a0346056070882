// The compose file against its specification and the service's settings.
//
//     check-compose.mjs SCHEMA
import { existsSync, readFileSync } from 'node:fs'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { parse } from 'yaml'
import { ROOT, accepted, isSetting, read } from './environment.mjs'
import { check, finish } from './verdict.mjs'

const [, , schemaFile] = process.argv
const file = parse(read('docker-compose.yml'), { merge: true })
const validate = new Ajv2020({ strict: false, validateFormats: false, allErrors: true, logger: false }).compile(JSON.parse(readFileSync(schemaFile, 'utf8')))
check(validate(file), `docker-compose.yml: ${(validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`).join('; ')}`)
check(!validate({ ...file, services: { ...file.services, redis: { ...file.services.redis, prots: [] } } }), 'the specification takes a misspelt key')
const { services, volumes } = file
const environment = Object.fromEntries(Object.entries(services.viewing.environment).map(([name, value]) => [name, String(value).replace(/\$\{\w+:-(.*)\}/, '$1')]))
check(Object.keys(environment).every(name => isSetting(name)), 'docker-compose.yml: viewing has a variable that the service does not know')
accepted(environment, 'docker-compose.yml')
check(services.redis.command.join(' ').includes('--maxmemory-policy noeviction'), 'docker-compose.yml: Redis may evict')
check(services['kafka-topics'].command.includes('--topic=playback.events'), 'docker-compose.yml: the topic')
for (const [name, service] of Object.entries(services)) {
  for (const needed of Array.isArray(service.depends_on) ? service.depends_on : Object.keys(service.depends_on ?? {})) {
    check(needed in services, `docker-compose.yml: ${name} waits for ${needed}, which is not there`)
    const condition = service.depends_on[needed]?.condition
    // The image of the service brings its own health check.
    if (condition === 'service_healthy') check(services[needed].healthcheck !== undefined || services[needed].build !== undefined, `docker-compose.yml: ${name} waits for the health of ${needed}, which has none`)
  }
  for (const port of service.ports ?? []) check(port.startsWith('127.0.0.1:'), `docker-compose.yml: ${name} listens to the world at ${port}`)
  for (const volume of service.volumes ?? []) {
    const [source] = volume.split(':')
    if (!source.startsWith('./')) check(source in volumes, `docker-compose.yml: volume ${source}`)
    else check(existsSync(`${ROOT}${source}`), `docker-compose.yml: ${source} is not there`)
  }
  if (service.image !== undefined) check(/:[^:/]+$/.test(service.image) && !service.image.endsWith(':latest'), `docker-compose.yml: ${service.image} has no version`)
}

finish()
