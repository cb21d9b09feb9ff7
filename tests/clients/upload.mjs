// Uploads one file with tus-js-client, or some with Uppy, as they are; told what by one argument in JSON, tells by lines in JSON.
import fs from 'node:fs'
import Uppy from '@uppy/core'
import Tus from '@uppy/tus'
import * as tus from 'tus-js-client'

const job = JSON.parse(process.argv[2])
const tell = (line) => process.stdout.write(JSON.stringify(line) + '\n')
// The last answer, by the names of what the tests look at.
const seen = { requests: [] }

const options = {
  endpoint: job.endpoint,
  retryDelays: job.retryDelays ?? [0, 100, 300, 1000, 1000, 1000, 1000, 1000],
  onAfterResponse: (request, response) => {
    seen.requests.push([request.getMethod(), response.getStatus()])
    seen.taskId = response.getHeader('Task-Id') ?? seen.taskId
    if (job.talkative) tell({ method: request.getMethod(), status: response.getStatus(), offset: response.getHeader('Upload-Offset') })
  },
  ...job.options,
}

if (job.client === 'uppy') {
  const uppy = new Uppy().use(Tus, options)
  for (const file of job.files) {
    uppy.addFile({ name: file.name, type: 'text/plain', data: fs.readFileSync(file.source), meta: file.meta })
  }
  const { successful, failed } = await uppy.upload()
  tell({ successful: successful.map((file) => file.uploadURL), failed: failed.map((file) => String(file.error)), ...seen })
} else {
  const source = job.buffered ? fs.readFileSync(job.source) : fs.createReadStream(job.source)
  const upload = new tus.Upload(source, {
    ...options,
    metadata: job.metadata,
    onError: (error) => tell({ error: String(error), ...seen }),
    onSuccess: () => tell({ url: upload.url, ...seen }),
    onShouldRetry: undefined,
  })
  if (job.terminate) {
    upload.options.onChunkComplete = async () => {
      await upload.abort(true)
      tell({ url: upload.url, ...seen })
    }
  }
  upload.start()
}
