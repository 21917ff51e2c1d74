-- PostgreSQL refuses each line, and so do we: when planning or when running.
b / i
f::int
m::numeric(10,1)
f::numeric(10,2)
1 / 0
i / 0
sqrt(-1)
s::int
ln(0)
2147483647 + 1
9223372036854775807 + 1
i + 2147483647
b * b
k + 32767::smallint
substring(s, 1, -1)
power(10, 400)
f / i
m::numeric(3,2)
'abc'::int
i = 'abc'
s = 5
i and p
p > 1
p + 1
d + d
d * 2
t > 5
i || i
upper(i)
length(5)
extract(hour from d)
d + t
count(*)
round(f, 2)
f % 2
p::date
i::date
1 < 2 = true
i::smallint
m / i::numeric(5,1)
(m * 100)::int
i * i * 1.0
