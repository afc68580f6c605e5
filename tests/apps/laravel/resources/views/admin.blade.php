<!doctype html>
<html>
<head><title>Admin</title></head>
<body>
<nav>
<ul>
@foreach ($resources as $resource)
  <li @class(['first' => $loop->first])>{{ $resource::label() }} <span class="badge">{{ $resource::navigationBadge() }}</span></li>
@endforeach
</ul>
</nav>
<main>
<h1>{{ $user->name }}</h1>
<table>
@foreach ($calls as $call)
  <tr><td>{{ $call->id }}</td><td>{{ $call->name }}</td><td>{{ $call->status }}</td><td>{{ $call->created_at->diffForHumans() }}</td></tr>
@endforeach
</table>
</main>
</body>
</html>
