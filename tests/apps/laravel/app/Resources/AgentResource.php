<?php

namespace App\Resources;

use App\Models\Agent;

class AgentResource extends Resource
{
    public static string $model = Agent::class;
}
