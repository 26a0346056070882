import { readFileSync } from 'node:fs'
import { Ajv } from 'ajv'
import { parseAllDocuments } from 'yaml'

/** Validators of custom resources, by kind and version, that refuse unknown fields as `kubectl --validate=strict` does. */
export function customResources (files) {
  const ajv = new Ajv({ strict: false, validateFormats: false, allErrors: true, logger: false })
  const validators = new Map()
  for (const file of files) {
    for (const { spec } of parseAllDocuments(readFileSync(file, 'utf8')).map(document => document.toJS()).filter(object => object?.kind === 'CustomResourceDefinition')) {
      for (const { name, schema } of spec.versions) validators.set(`${spec.group}/${name}/${spec.names.kind}`, ajv.compile(closed(schema.openAPIV3Schema, true)))
    }
  }
  return validators
}

function closed (schema, top = false) {
  const { properties, items, additionalProperties, pattern, ...rest } = schema
  if (schema['x-kubernetes-int-or-string']) return { type: ['integer', 'string'] }
  const open = schema['x-kubernetes-preserve-unknown-fields'] || properties === undefined
  return {
    ...rest,
    // Some are in Go's dialect, as (?i); those stay unchecked.
    ...(pattern === undefined || pattern.includes('(?') ? {} : { pattern }),
    ...(properties === undefined ? {} : { properties: Object.fromEntries(Object.entries(properties).map(([name, child]) => [name, top && name === 'metadata' ? {} : closed(child)])) }),
    ...(items === undefined ? {} : { items: closed(items) }),
    ...(additionalProperties === undefined ? (open ? {} : { additionalProperties: false }) : { additionalProperties: typeof additionalProperties === 'object' ? closed(additionalProperties) : additionalProperties })
  }
}
