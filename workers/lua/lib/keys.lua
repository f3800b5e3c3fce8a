-- Keys of jobs: of our record, of RQ's, and of who waits or requested.

local function job_key(id) return KEY.JOB_PREFIX .. id end
local function entry_key(id) return RQ.ENTRY_PREFIX .. id end
local function requesters_key(id) return KEY.REQUESTERS_PREFIX .. id end
local function requested_key(caller) return KEY.REQUESTED_PREFIX .. caller end
local function waiting_key(caller) return KEY.WAITING_PREFIX .. caller end
