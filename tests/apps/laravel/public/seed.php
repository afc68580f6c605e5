<?php

// Makes and fills the database; asked for once, before the first request of the application.

use App\Models\Company;
use App\Models\User;
use App\Resources\Resource;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Schema;

const LONGTEXT_COLUMNS = 25;
const CALLS = 125;
const OTHER_ROWS = 60;

require __DIR__.'/../bootstrap/autoload.php';

$app = require __DIR__.'/../bootstrap/app.php';
$app->make(Illuminate\Contracts\Console\Kernel::class)->bootstrap();
touch(database_path('gateway.sqlite'));

DB::transaction(function (): void {
    make_people();
    foreach (Resource::all() as $resource) {
        make_records($resource::$model);
    }
});
echo json_encode(['seeded' => true]);

function make_people(): void
{
    Schema::create('companies', function (Blueprint $table) {
        $table->id();
        $table->string('name');
        $table->timestamps();
    });
    Schema::create('users', function (Blueprint $table) {
        $table->id();
        $table->string('name');
        $table->foreignId('company_id');
        $table->rememberToken();
        $table->timestamps();
    });
    Schema::create('permissions', function (Blueprint $table) {
        $table->id();
        $table->foreignId('user_id');
        $table->string('name');
        $table->string('guard_name');
    });
    foreach ([1, 2, 3] as $id) {
        Company::create(['name' => "Company $id"]);
        User::create(['name' => "User $id", 'company_id' => $id]);
    }
    for ($i = 0; $i < 580; $i++) {
        DB::table('permissions')->insert(['user_id' => 1, 'name' => "resource_$i.action", 'guard_name' => 'web']);
    }
}

/** Calls are the story's heavy table: 125 rows of one company, 26 LONGTEXT columns, some 50 kB a row. */
function make_records(string $model): void
{
    $isCall = $model === App\Models\Call::class;
    $table = (new $model())->getTable();
    Schema::create($table, function (Blueprint $table) use ($isCall) {
        $table->id();
        $table->foreignId('company_id')->index();
        $table->string('name');
        $table->string('status');
        $table->longText('raw');
        for ($i = 0; $isCall && $i < LONGTEXT_COLUMNS; $i++) {
            $table->longText("longtext_$i");
        }
        $table->json('meta');
        $table->timestamps();
    });
    $texts = [];
    for ($i = 0; $isCall && $i < LONGTEXT_COLUMNS; $i++) {
        $texts["longtext_$i"] = str_repeat('y', 1000);
    }
    for ($i = 0; $i < ($isCall ? CALLS : OTHER_ROWS); $i++) {
        DB::table($table)->insert($texts + [
            'company_id' => $isCall ? 1 : 1 + $i % 3,
            'name' => class_basename($model)." $i",
            'status' => $i % 2 ? 'new' : 'done',
            'raw' => str_repeat(chr(97 + $i % 26), $isCall ? 25_679 : 200),
            'meta' => json_encode(['number' => $i]),
            'created_at' => now(),
            'updated_at' => now(),
        ]);
    }
}
