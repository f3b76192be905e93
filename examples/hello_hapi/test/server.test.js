"use strict";

const assert = require("node:assert/strict");
const test = require("node:test");

const { createServer } = require("../server");

test("greets by name", async () => {
  const answer = await createServer().inject("/hello/test");
  assert.equal(answer.statusCode, 200);
  assert.equal(answer.payload, "Hello, test!\n");
});

test("other paths are not found", async () => {
  const answer = await createServer().inject("/");
  assert.equal(answer.statusCode, 404);
});
