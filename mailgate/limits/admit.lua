-- Admits a batch of asks: the algorithm of limits/rules.py, on the server's clock.
--
-- KEYS[1] the epoch (when this store's memory begins, 0: always); KEYS[2..] one a limit.
-- ARGV[1] lead, ARGV[2] horizon (microseconds), ARGV[3] paces of KEYS[2..] as JSON
-- [[interval, tolerance, window, cap], …], ARGV[4] the distinct sets of limits as JSON
-- [[1, 2], …], ARGV[5] the asks as JSON, each the number of a set, ARGV[6] the longest
-- reach, ARGV[7] how many moments ahead are kept, ARGV[8] a clock for tests, else 0.
-- Returns {now, moment, refused by (0: granted), moment, refused by, …}, or {-1} when
-- the epoch is missing. A state is a MessagePack array: how many are ahead, tat, the epoch
-- that it was written under (one of another epoch means nothing), moments.

local epoch = redis.call('GET', KEYS[1])
if not epoch then return {-1} end
local since = tonumber(epoch)
local now = tonumber(ARGV[8])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local start = now + tonumber(ARGV[1])
local horizon = tonumber(ARGV[2])
local paces, sets, asks = cjson.decode(ARGV[3]), cjson.decode(ARGV[4]), cjson.decode(ARGV[5])
local reach, most_ahead = tonumber(ARGV[6]), tonumber(ARGV[7])
local max = math.max

-- A book: all = moments (behind, then ahead), n = how many of them, first = the index of
-- the first one ahead, tats[j] = the end of the slots before all[j] (j = first .. n + 1).

local function lay(book, from)
  local tat = book.tats[from]
  for j = from, book.n do
    tat = max(tat, book.all[j]) + book.interval
    book.tats[j + 1] = tat
  end
end

-- The least moment from x on that those before all[k] allow.
local function after(book, k, x)
  x = max(x, book.tats[k] - book.tolerance)
  if k == book.first and k > 1 then x = max(x, book.all[k - 1]) end
  local i = k - book.cap
  if book.cap > 0 and i >= 1 then x = max(x, book.all[i] + book.window) end
  return x
end

-- Whether all[k..] still obey with x before them.
local function fits(book, k, x)
  local interval, tolerance, window, cap = book.interval, book.tolerance, book.window, book.cap
  local all, tats = book.all, book.tats
  local tat = max(tats[k], x) + interval
  for j = k, book.n do
    local moment = all[j]
    if moment < tat - tolerance then return false end
    if cap > 0 then
      local i = j + 1 - cap
      if i >= 1 then
        local other
        if i == k then other = x elseif i < k then other = all[i] else other = all[i - 1] end
        if moment - other < window then return false end
      end
    end
    tat = max(tat, moment) + interval
    if cap == 0 and tat == tats[j + 1] then return true end
  end
  return true
end

-- The index of the first moment ahead that is later than x.
local function later(book, x)
  local low, high = book.first, book.n + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if x < book.all[middle] then high = middle else low = middle + 1 end
  end
  return low
end

local function earliest(book, x)
  local k = later(book, x)
  while true do
    x = after(book, k, x)
    if k > book.n or (x <= book.all[k] and fits(book, k, x)) then return x end
    x = max(x, book.all[k])
    k = k + 1
  end
end

local function give(book, x)
  local k = later(book, x)
  table.insert(book.all, k, x)
  book.n = book.n + 1
  lay(book, k)
  book.changed = true
end

local function open(number)
  local pace = paces[number]
  local book = {interval = pace[1], tolerance = pace[2], window = pace[3], cap = pace[4],
                all = {}, tats = {}, n = 0, first = 1, changed = false}
  local tat, ahead, stored = 0, 0, redis.call('GET', KEYS[number + 1])
  -- What was given before the epoch is unknown: nothing until that is over.
  if since > 0 then tat = since + reach + book.window + book.tolerance end
  local moments = {}
  if stored then
    moments = cmsgpack.unpack(stored)
    if moments[3] == since then ahead, tat = moments[1], moments[2] else moments = {} end
  end
  local count = #moments
  local last = 0
  if ahead > 0 then last = moments[count] end
  if last > now + reach or tat - book.tolerance - book.window > now + reach then
    -- The clock was set back: see limits/rules.py.
    tat, ahead, count = now + reach + book.window + book.tolerance, 0, 0
    book.changed = true
  end
  -- Drop what no window holds any more, then settle what nothing can be fitted before.
  for j = 4, count do
    if j > count - ahead or moments[j] > now - book.window then
      book.n = book.n + 1
      book.all[book.n] = moments[j]
    end
  end
  book.first = book.n - ahead + 1
  book.tats[book.first] = tat
  lay(book, book.first)
  local n = book.first
  while n <= book.n do
    local moment = book.all[n]
    if moment > now and book.n - n + 1 <= most_ahead then
      local x = after(book, n, now)
      if x <= moment and fits(book, n, x) then break end
    end
    n = n + 1
  end
  if book.cap == 0 and n > book.first then
    local kept, ends = {}, {book.tats[n]}
    for j = n, book.n do
      kept[j - n + 1], ends[j - n + 2] = book.all[j], book.tats[j + 1]
    end
    book.all, book.tats, book.n, book.first = kept, ends, book.n - n + 1, 1
  else
    book.first = n
  end
  return book
end

local function close(number, book)
  local state = {book.n - book.first + 1, book.tats[book.first], since}
  for j = 1, book.n do state[j + 3] = book.all[j] end
  local last = book.tats[book.n + 1]
  if book.n > 0 then last = max(last, book.all[book.n]) end
  -- Idle from then on; a second more in case the clock is set back a little.
  local ms = math.ceil((last + book.window - now) / 1000) + 1000
  redis.call('SET', KEYS[number + 1], cmsgpack.pack(state), 'PX', string.format('%.0f', ms))
end

local books, said, reply = {}, {}, {now}
for n, set in ipairs(asks) do
  local before = said[set]
  if not before or before[2] == 0 then
    local limits = sets[set]
    local moment, tightest = start, limits[1]
    if before then moment = before[1] end
    for _, number in ipairs(limits) do
      if not books[number] then books[number] = open(number) end
    end
    local settled = false
    while not settled do
      settled = true
      for _, number in ipairs(limits) do
        local x = earliest(books[number], moment)
        if x > moment then moment, tightest, settled = x, number, false end
      end
    end
    if moment - start > horizon then
      before = {moment, tightest}
    else
      for _, number in ipairs(limits) do give(books[number], moment) end
      before = {moment, 0}
    end
    said[set] = before
  end
  reply[2 * n], reply[2 * n + 1] = before[1], before[2]
end
for number, book in pairs(books) do
  if book.changed then close(number, book) end
end
return reply
