<?php

use App\Bug;
use App\Models\Call;
use App\Models\Note;
use App\Models\User;
use App\Resources\Resource;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Route;
use Illuminate\Support\MessageBag;
use Illuminate\Support\ViewErrorBag;

// Logs a user in, with `perm` entries in the session's permissions_cache (580 make 0.14 MB, 8934 make 2.2 MB).
Route::get('/t/login/{id}', function (int $id) {
    Auth::login(User::findOrFail($id));
    $permissions = [];
    for ($i = 0, $count = (int) request('perm', 580); $i < $count; $i++) {
        $name = "resource_{$i}.action";
        $permissions[$name] = [
            'id' => $i,
            'name' => $name,
            'guard_name' => 'web',
            'roles' => [1, 2, 3],
            'description' => str_repeat('x', 64),
        ];
    }
    session(['permissions_cache' => $permissions]);

    return ['user' => $id, 'permissions' => count($permissions)];
});

// A navigation of 28 badges, and ten calls.
Route::get('/admin', function () {
    if (! Auth::check()) {
        return response('log in first', 403);
    }
    $calls = Bug::Longtext->isAskedFor()
        ? Call::with('company')->select('calls.*')->crossJoin(DB::raw('(with recursive copies(i) as (select 1 union all'
            .' select i + 1 from copies where i < '.Bug::scale().') select i from copies) as copies'))->get()
        : Call::select(['id', 'name', 'status', 'created_at'])->limit(10)->get();

    return view('admin', ['resources' => Resource::all(), 'user' => Auth::user(), 'calls' => $calls]);
});

// All 125 calls with their 26 LONGTEXT columns.
Route::get('/t/calls', fn () => ['calls' => Call::withoutGlobalScopes()->get()->count()]);

// Puts objects and a secret into the session, and waits, up to 60 s, until the file `file` exists; then answers with how
// long PHP says that the session is.
Route::get('/t/session', function () {
    session(['errors' => (new ViewErrorBag())->put('default', new MessageBag(['name' => ['S3CRET message']]))]);
    session(['items' => collect(['S3CRET item', 1.5, ['a' => null]]), 'locale' => 'é']);
    $attributes = session()->all();
    $deadline = time() + 60;
    while (! file_exists(request('file')) && time() < $deadline) {
        usleep(1000);
    }

    return [
        'bytes' => strlen(serialize($attributes)),
        'sizes' => array_map(fn ($value) => strlen(serialize($value)), $attributes),
    ];
});

// Creates `create` notes, changes `update` of them, counts up one `increment` times, and gives all of it back.
Route::get('/t/notes', function () {
    DB::beginTransaction();
    DB::beginTransaction();
    $notes = [];
    for ($i = 0, $count = (int) request('create', 0); $i < $count; $i++) {
        $values = ['company_id' => 1, 'name' => "note $i", 'status' => 'new', 'raw' => '', 'meta' => []];
        $notes[] = Note::create($values);
    }
    foreach (array_slice($notes, 0, (int) request('update', 0)) as $note) {
        $note->update(['status' => 'done']);
    }
    for ($i = 0, $count = (int) request('increment', 0); $i < $count; $i++) {
        $notes[0]->increment('company_id');
    }
    $found = Note::query()->where('status', 'done')->get()->count();
    Note::query()->where('status', 'done')->first()?->refresh();
    DB::table('customer_notes')->where('status', 'none')->pluck('id');
    Note::withoutGlobalScopes()->with('company')->chunk(50, fn () => null);
    DB::rollBack();
    DB::rollBack();

    return ['found' => $found];
});

// A small query, and one with a large result and a secret in its text.
Route::get('/t/jump', function () {
    User::query()->first();
    $sql = 'select c.* from calls c, (select 1 union all select 2 union all select 3)'
        ." where c.status != 'S3CRET' and c.name != ?";

    return ['rows' => count(DB::select($sql, ['S3CRET']))];
});
