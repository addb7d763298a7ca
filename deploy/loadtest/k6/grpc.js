// ModelInfer of the Open Inference Protocol with one encoded image; see load.js for the plan.
import grpc from 'k6/net/grpc';
import { SharedArray } from 'k6/data';
import { nextRequest, note, plan, restIf, waitUntilDue } from './load.js';

export { options } from './load.js';

const client = new grpc.Client();
client.loadProtoset(plan.protoset);

// Base64 of the raw BYTES tensor (length and file), as k6 wants bytes in a message
const tensors = new SharedArray('tensors', () => plan.pictures.map((picture) => open(picture.tensor)));

const OUTCOMES = { [grpc.StatusOK]: 'ok', [grpc.StatusResourceExhausted]: 'refused' };
let connected = false;

export default function () {
  const request = nextRequest();
  if (!request) {
    return;
  }
  if (!connected) {
    client.connect(plan.address, { plaintext: true, maxReceiveSize: 64 * 2 ** 20 });
    connected = true;
  }
  const message = {
    model_name: plan.model,
    inputs: [{ name: 'IMAGE', datatype: 'BYTES', shape: [1] }],
    raw_input_contents: [tensors[request.picture]],
  };
  waitUntilDue(request);
  const begun = Date.now();
  const answer = client.invoke('inference.GRPCInferenceService/ModelInfer', message, {
    discardResponseMessage: true,
    timeout: `${plan.timeout_s}s`,
  });
  const outcome = OUTCOMES[answer.status] || 'failed';
  note(request, begun, answer.status, outcome, '');
  restIf(outcome === 'refused');
}
