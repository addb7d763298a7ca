// POST of an image file as the raw body; see load.js for the plan.
import http from 'k6/http';
import { open as openFile } from 'k6/experimental/fs';
import { nextRequest, note, plan, restIf, waitUntilDue } from './load.js';

export { options } from './load.js';

const files = []; // held once for all virtual users
(async () => {
  for (const picture of plan.pictures) {
    files.push(await openFile(picture.file));
  }
})();

const OUTCOMES = { 200: 'ok', 429: 'refused' };

async function bytesOf(file) {
  const bytes = new Uint8Array((await file.stat()).size);
  await file.seek(0, 0);
  await file.read(bytes);
  return bytes.buffer;
}

export default async function () {
  const request = nextRequest();
  if (!request) {
    return;
  }
  const body = await bytesOf(files[request.picture]);
  const headers = { 'Content-Type': plan.pictures[request.picture].media_type };
  waitUntilDue(request);
  const begun = Date.now();
  const answer = http.post(plan.url, body, { headers, timeout: `${plan.timeout_s}s`, redirects: 0 });
  const outcome = OUTCOMES[answer.status] || 'failed';
  note(request, begun, answer.status, outcome, answer.headers['Server-Timing'] || '');
  restIf(outcome === 'refused');
}
