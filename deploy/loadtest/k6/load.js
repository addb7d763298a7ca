// What both protocols share: the plan of one run, its arrivals, its thresholds, and a line for each answer.
//
// The plan is a JSON file, written by generator.py:
//   k6 run -e PLAN=/path/plan.json --console-output answers.jsonl --log-format raw deploy/loadtest/k6/http.js
// URL or ADDRESS in the environment send it elsewhere.
import exec from 'k6/execution';
import { sleep } from 'k6';
import { SharedArray } from 'k6/data';
import { Rate, Trend } from 'k6/metrics';

export const plan = JSON.parse(open(__ENV.PLAN));
plan.url = __ENV.URL || plan.url;
plan.address = __ENV.ADDRESS || plan.address;

// [when in ms after the start, which picture], one for each request
const arrivals = new SharedArray('arrivals', () => JSON.parse(open(plan.arrivals)));

const fromSchedule = new Trend('from_schedule', true);
const refused = new Rate('refused');
const failed = new Rate('failed');

const scenarios = {
  closed: {
    executor: 'constant-vus',
    vus: plan.vus,
    duration: `${plan.seconds}s`,
  },
  constant: {
    executor: 'constant-arrival-rate',
    rate: plan.rate_per_1000_s,
    timeUnit: '1000s',
    duration: `${plan.seconds}s`,
    preAllocatedVUs: plan.vus,
  },
  ramp: {
    executor: 'ramping-arrival-rate',
    startRate: plan.rate_per_1000_s,
    timeUnit: '1000s',
    stages: [{ target: plan.end_rate_per_1000_s, duration: `${plan.seconds}s` }],
    preAllocatedVUs: plan.vus,
  },
};

// A full house may refuse; nothing may fail. Below saturation nothing may be refused or late either.
const always = { failed: ['rate==0'], dropped_iterations: ['count==0'] };
const belowSaturation = { refused: ['rate==0'], from_schedule: [`p(99)<${plan.p99_ms}`] };

export const options = {
  discardResponseBodies: true,
  scenarios: { load: { ...scenarios[plan.shape], gracefulStop: `${plan.timeout_s + 5}s` } },
  thresholds: plan.saturating ? always : { ...always, ...belowSaturation },
  summaryTrendStats: ['med', 'p(90)', 'p(99)', 'p(99.9)', 'max'],
};

// The request this iteration is for, or null when all have been sent.
export function nextRequest() {
  const index = exec.scenario.iterationInTest;
  if (plan.shape === 'closed') {
    return { index, picture: arrivals[index % arrivals.length][1], due: null };
  }
  if (index >= arrivals.length) {
    return null;
  }
  const [afterStart, picture] = arrivals[index];
  return { index, picture, due: exec.scenario.startTime + afterStart };
}

// k6 begins an iteration at a regular tick; the arrival it stands for is a little later, at random.
export function waitUntilDue(request) {
  const wait = request.due - Date.now();
  if (request.due && wait > 0) {
    sleep(wait / 1000);
  }
}

// A user who has been sent away comes back later, not at once.
export function restIf(refused) {
  if (refused && plan.shape === 'closed') {
    sleep(1);
  }
}

// outcome: 'ok', 'refused' or 'failed'; times in ms since 1970
export function note(request, begun, status, outcome, serverTiming) {
  const ended = Date.now();
  const due = request.due || begun;
  if (outcome === 'ok') {
    fromSchedule.add(ended - due);
  }
  refused.add(outcome === 'refused');
  failed.add(outcome === 'failed');
  console.log(
    JSON.stringify({
      index: request.index,
      picture: request.picture,
      due,
      begun,
      ended,
      status,
      outcome,
      server_timing: serverTiming,
    }),
  );
}
