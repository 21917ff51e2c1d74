-- PostgreSQL and Polars give the same values of the same types for each line.
i / 2
i / -2
b / 3
nullif(i, 0) / nullif(b, 0)
b % nullif(i, 0)
i % 3
-i % 3
mod(i, -3)
k + 1
k + k
i + b
i * 2
b - 1
i * 1.5
i + 1.5
f * 1.5
f * i
r * 1.5
r * r
r + i
f + m
m + 1
m * m
m * 2.25
m / 3
m / nullif(m, 0)
10 / 4.0
1 / 3.0
m % 2
m % -0.7
-m
-i
+i
abs(i)
abs(m)
abs(f)
sign(i)
sign(m)
f / 2
f / nullif(f, 0.5)
i / nullif(f, 0.5)
ceil(m)
floor(m)
ceil(f)
floor(f)
ceil(i)
round(f)
round(m)
round(m, 2)
round(m, 1)
round(i)
round(i, 2)
round(f::numeric, 2)
trunc(m)
trunc(m, 1)
trunc(f)
m::int
f::bigint
m::bigint
f::numeric
i::numeric
i::numeric / 3
i::text
b::text
f::text
m::text
d::text
t::text
z::text
p::text
p::int
i::bool
w::int
w::bigint
x::date
y::float8
y::numeric
y::numeric(10,2)
x::timestamp
x::timestamptz
d::timestamp
d::timestamptz
t::date
z::date
t::time
t::time::text
t::timestamptz
z::timestamp
'yes'::bool
'1.50'::numeric
'1.55'::numeric(3,1)
'12'::int
'2024-01-01'::date
'2024-01-01 10:00'::timestamp
'2024-01-01 10:00+02'::timestamptz
date '2024-01-01'
timestamp '2024-01-01 10:00:00.5'
d - e
d + 1
1 + d
d - 1
d + i
d - k
d - date '2024-01-01'
d - '2024-01-01'
t - d
t - timestamp '2020-01-01'
z - t
d + interval '1 day'
d + interval '1 month'
d - interval '1 month'
t + interval '1 year 2 months 3 days 4 hours'
z + interval '90 minutes'
t - interval '1 week'
d + i * interval '1 day'
t + k * interval '2 hours'
t + interval '1' day
interval '1 day' + interval '2 hours'
extract(year from d)
extract(quarter from d)
extract(month from t)
extract(week from d)
extract(isoyear from d)
extract(day from z)
extract(dow from d)
extract(isodow from d)
extract(doy from d)
extract(hour from t)
extract(minute from z)
extract(second from t)
extract(epoch from t)
extract(epoch from d)
extract(epoch from z)
extract(epoch from t - d)
extract(day from t - d)
extract(year from d) / 4
date_trunc('month', d)
date_trunc('week', t)
date_trunc('quarter', z)
date_trunc('year', t)
date_trunc('day', z)
date_trunc('hour', t)
date_trunc('minute', t)
date_trunc('second', t)
z at time zone 'Europe/Berlin'
t at time zone 'Europe/Berlin'
t at time zone 'UTC'
to_char(d, 'YYYY-MM-DD')
to_char(t, 'YYYY/MM/DD HH24:MI:SS')
to_date(x, 'YYYY-MM-DD')
d > e
d = t
t < z
d >= '2024-01-01'
t >= '2024-01-01'
z >= '2024-01-01'
i > 1.5
i > 2
b = 9007199254740993
f > 1
f = 1.005
r = 0.1
m > 1
m = 1.255
m < f
s > 'a'
s = 'Abc'
s <> u
p = true
p and q
p or q
not p
p is true
p is not true
p is false
p is not false
p is unknown
p is null
i is null
i is not null
i isnull
p is distinct from q
p is not distinct from q
i is distinct from 3
s is distinct from null
i = null
i in (1, 3)
i in (1, null)
i not in (1, 3)
i not in (1, null)
s in ('Abc', '')
d in ('2024-01-31', '1970-01-01')
i in (b, 3)
f in (0.5, 1)
m in (1.255, 7)
i between 0 and 5
i not between 0 and 5
d between '2024-01-01' and '2024-12-31'
m between 0 and f
coalesce(i, 0)
coalesce(i, b)
coalesce(i, 1.5)
coalesce(s, 'none')
coalesce(d, '2000-01-01')
coalesce(d, t)
nullif(i, 3)
nullif(s, '')
nullif(i, b)
greatest(i, b)
least(i, b, 1)
greatest(f, m)
greatest(d, e)
least(s, u)
greatest(i, null)
greatest(f, 'NaN')
case when i > 0 then 'pos' when i < 0 then 'neg' else 'zero' end
case when p then i end
case when p then i else 2.5 end
case i when 3 then 'three' when 7 then 'seven' end
case when i <> 0 then b / i else 0 end
case when i <> 0 then b / i end
i <> 0 and b / i > 0
i = 0 or b / i > 0
coalesce(nullif(i,0), 1) + 1
case when s ~ '^[0-9]+$' then s::int else 0 end
s || u
s || i
s || null
s || p
'a' || 'b'
'n: ' || f
s || d
concat(s, u)
concat(s, null, i, p)
concat(f, d)
concat_ws('-', s, null, u)
length(s)
char_length(s)
upper(s)
lower(s)
trim(s)
trim(both 'x' from s)
ltrim(s, 'A ')
rtrim(s, 'cz')
btrim(s, 'xz')
substring(s, 2)
substring(s, 2, 3)
substring(s from 2 for 3)
substring(s, 0, 3)
substring(s, -1, 4)
substring(s, i)
substring(s, 1, position('-' in s))
substr(s, 2, 2)
left(s, 2)
left(s, -2)
right(s, 2)
right(s, -2)
position(u in s)
position('x' in s)
strpos(s, u)
strpos(s, 'é')
replace(s, 'x', 'yy')
replace(s, '', 'y')
replace(s, 'x', u)
replace(s, 'x', '$1')
split_part(s, '-', 2)
split_part(s, '-', -1)
split_part(s, 'zz', 1)
split_part(s, '-', 9)
lpad(s, 5, '*')
rpad(s, 5)
lpad(s, 2, 'x')
reverse(s)
starts_with(s, 'x')
s like 'A%'
s like '%x'
s like '%-%'
s like 'Abc'
s like '___'
s like 'x\_y%'
s like 'x!_%' escape '!'
s like '%\%%'
s like ''
s like '%'
s like 'line1%line2'
s like '%x_y%'
s not like 'A%'
s ilike 'a%'
s ilike 'ABC'
s not ilike '%É%'
s ~ '^[A-Z]'
s ~* '^ABC$'
s !~ 'x'
s !~* 'X'
s ~ 'line1.line2'
s ~ '\d$'
s ~ '\mw'
s ~ '\yx\y'
s ~ '1$'
s ~ '[[:digit:]]'
regexp_replace(s, '[^a-z]', '', 'g')
regexp_replace(s, '[a-z]+', '#')
regexp_replace(s, '\s+', ' ', 'g')
regexp_replace(s, 'X', '$0', 'gi')
power(i, 2)
i ^ 2
2 ^ 3 ^ 2
-2 ^ 2
sqrt(abs(f))
exp(k)
ln(abs(f) + 1)
log(abs(f) + 1)
1 + 2 * 3
(1 + 2) * 3
5 - 3 - 1
i > 0 and p or q
not p and q
not i = 3
i = 3 is null
'a' || 1 + 2
i - - 3
true
null and p
null or p
1e3 + i
.5 + i
sum(i) over (partition by p)
sum(i) over ()
sum(b) over (partition by q)
sum(m) over (partition by q)
sum(f) over (partition by p)
avg(i) over (partition by q)
avg(f) over (partition by p)
avg(m) over (partition by q)
count(*) over (partition by p)
count(i) over (partition by p)
min(s) over (partition by q)
max(d) over (partition by q)
row_number() over (order by i, s)
row_number() over (partition by p order by i desc nulls last, d)
row_number() over (order by p desc, s)
rank() over (order by p)
dense_rank() over (partition by q order by p desc)
lag(i) over (order by b)
lag(i, 2) over (order by b desc)
lead(d, 1) over (partition by q order by i)
i - lag(i) over (order by i)
case when i > 1 then sum(i) over (partition by p) end
'5' + i
i = '5'
'a' > 'B'
s > u
t::text || 'x'
current_date - d > 0
abs('-5')
b / -1
- interval '1 day' + t
t - interval '1 month'
t + interval '-1 month'
coalesce(p, false) and q
(i > 1) = p
i in (1.5, 3)
i in ('1', '3')
d in (e, '2024-01-31')
s in (u, null)
i between 1 and null
extract(second from t::time)
extract(epoch from interval '1 day 2 hours')
p > q
p = 'yes'
z::date = d
f::text::float8
m::text::numeric(12,3)
cast(i as double precision)
f::real
m::float8
(i + 1)::text || 's'
length(trim(s)) > 2 and s not like '%z'
concat('a', 'b')
'x' in ('x', 'y')
i + null
null + 1
null::int + 1
null::text || 'a'
coalesce(null, i)
coalesce(null, null, 's')
case when null then 1 else 2 end
nullif('a', 'b')
greatest('a', 'b')
to_timestamp(x, 'YYYY-MM-DD')
upper('a') || lower('B')
nullif(i, '3')
s is null or s = ''
not (i is null)
i is not distinct from null
trunc(i)
trunc(m, 5)
round(m, 5)
round(-2.5)
round(-2.5::float8)
round('2.5'::numeric)
1.0 * i
100 * m / 3
i / 2.0
i * 0.1
m - i
m - 0.0001
f - m
b::float8
9007199254740993 = b
1e-3 * m
sum(i * 2) over (partition by p, q)
sum(i) over (partition by p) / count(*) over (partition by p)
rank() over (partition by q order by i desc, s)
date_trunc('month', '2024-05-06'::date)
'2024-05-06' - d
d = '2024-01-31' and s = 'Abc'
z > '2024-01-01 00:00:00+02'
z = '2024-03-31 01:30:00.000001'
z - interval '1 month'
extract(hour from z at time zone 'America/New_York')
timestamp '2024-10-27 02:30' at time zone 'Europe/Berlin'
current_date = current_timestamp::date
now() > z
localtimestamp > t
f = 'NaN'
f > 'NaN'
'NaN'::float8 > f
abs(f - m) < 0.1
b * 0 - 9223372036854775808
-i % 3 = -1
s ~ 'a|b'
s ~ '^.{3}$'
s ~ '[a-c]{2,}'
s ~ '(a|h).*'
s ~ '[^a-z]'
s ~ '\.'
s ~ '%'
substring(s from 2)
s || '-' || coalesce(u, '?')
b in (9007199254740993)
b not in (i, 1)
-9223372036854775808
2.5::float8::int
(-2.5)::float8::bigint
case when f < 1e6 then f::int end
case when abs(b) < 1000 then b * b end
case when m < 1000 then m::numeric(10,1) end
case when b <> 0 and i <> 0 then i / b * 100 end
case when k = 0 then 0 when i / k > 1 then 1 else 2 end
case when s ~ '^a' then length(s) / 2.0 when s = '' then 1 / (length(s) + 1) end
coalesce(i, 1) / coalesce(nullif(b, 0), 1)
greatest(i, b, 0) - least(i, b, 0)
